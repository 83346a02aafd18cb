"""The wheel as a product: built from the sdist, installed outside of the checkout, run in an empty folder."""

import csv
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCES = ('mmkd_ext', 'configs', 'tools', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE')
# What pip and build backends would otherwise leave behind in the checkout stays in a copy.
SDIST = 'import setuptools.build_meta as backend, sys; backend.build_sdist(sys.argv[1])'
GET_CONFIG = """
import mmkd_ext.registry
from mmengine.config import Config
from mmengine.hub import get_config
print(get_config('mmkd_ext::crkd/crkd_convnet_80e_digits.py').filename)
open('mine.py', 'w').write("_base_ = 'mmkd_ext::crkd/crkd_convnet_80e_digits.py'")
print(Config.fromfile('mine.py').train_cfg.max_epochs)
"""


def _run(*command, cwd):
    hidden = ('PYTHONPATH', 'VIRTUAL_ENV')  # the checkout must not be seen
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('build')
    (folder / 'sources').mkdir()
    _run('cp', '-RP', *(ROOT / name for name in (*SOURCES, 'model-index.yml')), folder / 'sources', cwd=folder)
    _run(sys.executable, '-c', SDIST, folder, cwd=folder / 'sources')
    pip = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-index', '--no-build-isolation', '-w', folder]
    _run(*pip, *folder.glob('*.tar.gz'), cwd=folder)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of an environment with the wheel, which sees the other packages of this one but not its links."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=False)
    python = folder / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', '--no-compile']
    _run(*pip, wheel, cwd=folder)
    (packages,) = folder.glob('lib/python*/site-packages')
    # Paths of a .pth come after, and a .pth in them, such as that of an editable install, is not heeded.
    others = [path for path in sys.path if path.endswith(('site-packages', 'dist-packages'))]
    (packages / 'others.pth').write_text('\n'.join(others))
    return python.parent


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('empty')


def test_what_is_run_is_what_was_installed(installed, folder):
    file = _run(installed / 'python', '-c', 'import mmkd_ext; print(mmkd_ext.__file__)', cwd=folder)
    assert Path(file.strip()).is_relative_to(installed.parent)


def test_every_config_and_script_is_in_it(installed):
    (mim,) = installed.parent.glob('lib/python*/site-packages/mmkd_ext/.mim')
    assert not any(path.is_symlink() for path in mim.rglob('*'))
    for name in ('configs', 'tools'):
        ours = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob('*') if path.is_file()}
        found = {path.relative_to(mim / name) for path in (mim / name).rglob('*') if path.is_file()}
        ours = {path for path in ours if path.suffix != '.pyc'} - {Path('with_env.sh')}
        assert {path for path in found if path.suffix != '.pyc'} == ours
    assert (mim / 'model-index.yml').is_file()


def test_mmengine_finds_configs_by_the_name_of_the_package(installed, folder):
    file, epochs = _run(installed / 'python', '-c', GET_CONFIG, cwd=folder).split()[-2:]
    assert Path(file).is_relative_to(installed.parent)
    assert epochs == '80'


def test_train_by_the_name_of_a_config(installed, folder):
    options = ['--cfg-options', 'train_cfg.max_epochs=2', 'train_cfg.val_interval=2']
    config = 'mmkd_ext::crkd/crkd_convnet_80e_digits.py'
    output = _run(installed / 'mmkd', 'train', config, '--with-teacher', *options, cwd=folder)
    assert '=== First mmkd_ext::supervised/supervised_convnet_40e_digits.py, which makes work_dirs/' in output
    report = folder / 'work_dirs' / 'crkd_convnet_80e_digits' / 'report'
    assert (report / 'gallery.png').stat().st_size > 0
    assert 0 <= json.loads((report / 'metrics.json').read_text())['metrics']['unlabelled_train/novel_acc'] <= 100


def test_discover(installed, folder):
    generator = np.random.default_rng(0)
    for index in range(40):
        kind = index % 4
        place = folder / 'known' / 'ab'[kind] if kind < 2 else folder / 'all'
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (8, 8)) + 40 * kind
        Image.fromarray(pixels.astype(np.uint8)).save(place / f'{index}.png')
    _run(installed / 'mmkd', 'discover', 'known', 'all', '--epochs', '1', '--num-novel', '2', cwd=folder)
    rows = list(csv.DictReader((folder / 'discovered' / 'assignments.csv').read_text().splitlines()))
    assert len(rows) == 20
    assert (folder / 'discovered' / 'report.html').stat().st_size > 0
