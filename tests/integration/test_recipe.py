"""The whole recipe as a user runs it: tools, stages, interruption, several processes, report. Digits, a few epochs."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmkd_ext.checkpoint import load_checkpoint_safely

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'

STAGE = """
_base_ = '{root}/configs/supervised/supervised_convnet_40e_digits.py'
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1))
"""
RECIPE = """
_base_ = '{root}/configs/crkd/crkd_convnet_80e_digits.py'
stage_one = dict(config='{folder}/stage.py', checkpoint='{folder}/stage/epoch_2.pth')
load_from = stage_one['checkpoint']
custom_hooks = [
    *_base_.custom_hooks[:-2],
    dict(_base_.custom_hooks[-2], max_points=100, images_per_class=2),  # to draw all takes longer than the rest
    dict(_base_.custom_hooks[-1], teacher=stage_one)]
train_cfg = dict(max_epochs={epochs}, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1))
"""


def _run(*command, **kwargs) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable}
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env=environment, **kwargs)


def _train(config: Path, *options) -> subprocess.CompletedProcess:
    return _run(sys.executable, TOOLS / 'train.py', config, *options, cwd=config.parent)


def _write(folder: Path, epochs: int) -> Path:
    (folder / 'stage.py').write_text(STAGE.format(root=ROOT))
    (folder / 'recipe.py').write_text(RECIPE.format(root=ROOT, folder=folder, epochs=epochs))
    return folder / 'recipe.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """A folder with both stages trained by one command."""
    folder = tmp_path_factory.mktemp('recipe')
    config = _write(folder, epochs=2)
    done = _train(config, '--with-teacher')
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.index('=== First stage.py') < done.stdout.index('=== Now recipe.py')
    return folder


def test_the_report_is_complete(trained):
    report = trained / 'work_dirs' / 'recipe' / 'report'
    for name in ('report.md', 'confusion.png', 'gallery.png', 'embedding_map.png', 'curves.png', 'assignments.csv'):
        assert (report / name).stat().st_size > 0, name
    metrics = json.loads((report / 'metrics.json').read_text())['metrics']
    assert 0 <= metrics['unlabelled_train/novel_acc'] <= 100
    rows = list(csv.DictReader((report / 'assignments.csv').open()))
    assert {row['split'] for row in rows} == {'unlabelled_train', 'test'}
    assert len(rows) == 602 + 596


def test_the_checkpoint_holds_the_student_alone_with_unit_prototypes(trained):
    weights = load_checkpoint_safely(trained / 'work_dirs' / 'recipe' / 'epoch_2.pth')['state_dict']
    stage = load_checkpoint_safely(trained / 'stage' / 'epoch_2.pth')['state_dict']
    new = weights.keys() - stage.keys()
    assert stage.keys() <= weights.keys()
    assert all(name.startswith('novel_head.') for name in new)
    for name in ('known_head.prototypes.weight', 'novel_head.prototypes.weight'):
        norms = weights[name].norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_a_missing_stage_names_the_command_that_trains_it(tmp_path, run_here):
    _write(tmp_path, epochs=2)
    with pytest.raises(FileNotFoundError, match=r'train.* stage.py --work-dir(.|\n)*--with-teacher'):
        run_here(tmp_path, 'train.py', 'recipe.py')


def test_kill_in_mid_training_and_resume(trained, run_here):
    """The run goes on from its own last checkpoint, not from stage one, and its schedule where it stopped."""
    config = trained / 'long.py'
    config.write_text(RECIPE.format(root=ROOT, folder=trained, epochs=12))
    pointer = trained / 'work_dirs' / 'long' / 'last_checkpoint'
    command = [sys.executable, str(TOOLS / 'train.py'), str(config)]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    run = subprocess.Popen(command, cwd=trained, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and not (pointer.is_file() and 'epoch_4' in pointer.read_text()):
        time.sleep(0.02)
    assert run.poll() is None, 'the run ended before it could be killed'
    run.send_signal(signal.SIGKILL)
    run.wait()
    reached = int(re.search(r'epoch_(\d+)', pointer.read_text())[1])
    earlier = set(pointer.parent.glob('*/*.log'))
    run_here(trained, 'train.py', config, '--resume')
    (log,) = set(pointer.parent.glob('*/*.log')) - earlier
    epochs = [int(e) for e in re.findall(r'Epoch\(train\)\s+\[(\d+)\]', log.read_text())]
    assert epochs[0] == reached + 1
    assert epochs[-1] == 12
    final = load_checkpoint_safely(pointer.read_text().strip())
    # Twelve of the eighty epochs: ten of warm-up from 0.001 to 0.1, then two of the cosine, by its formula.
    expected = 0.001 + 0.5 * 0.099 * (1 + torch.cos(torch.tensor(2 * torch.pi / 70))).item()
    assert final['optimizer']['param_groups'][0]['lr'] == pytest.approx(expected, rel=1e-6)
    curves = json.loads((trained / 'work_dirs' / 'long' / 'report' / 'curves.json').read_text())
    assert curves, 'the report of the resumed run has no curves'
    assert final['state_dict']['novel_head.objective_count'] == 9  # iterations of the last epoch alone


def test_resume_without_a_checkpoint_starts_from_the_beginning(trained, run_here, capsys):
    config = trained / 'fresh.py'
    config.write_text(RECIPE.format(root=ROOT, folder=trained, epochs=1))
    run_here(trained, 'train.py', config, '--resume')
    assert 'starting from the beginning' in capsys.readouterr().out
    assert (trained / 'work_dirs' / 'fresh' / 'epoch_1.pth').is_file()


def test_two_processes_evaluate_as_one(trained, run_here):
    """596 + 602 images do not divide by 2 x 512: padding and order must not matter."""
    checkpoint = trained / 'work_dirs' / 'recipe' / 'epoch_2.pth'
    config = trained / 'recipe.py'
    run_here(trained, 'test.py', config, checkpoint, '--work-dir', trained / 'one')
    options = ['--work-dir', trained / 'two', '--cfg-options', 'test_dataloader.batch_size=101']
    two = _run('bash', TOOLS / 'dist_test.sh', config, checkpoint, 2, *options, cwd=trained)
    assert two.returncode == 0, two.stderr[-3000:]
    metrics = [json.loads((trained / w / 'report' / 'metrics.json').read_text())['metrics'] for w in ('one', 'two')]
    assert metrics[0] == metrics[1]
    rows = [(trained / w / 'report' / 'assignments.csv').read_text() for w in ('one', 'two')]
    columns = [[line.split(',')[:4] for line in text.splitlines()] for text in rows]
    assert columns[0] == columns[1]


def test_two_processes_train(trained, run_here):
    config = trained / 'distributed.py'
    config.write_text(RECIPE.format(root=ROOT, folder=trained, epochs=1))
    done = _run('bash', TOOLS / 'dist_train.sh', config, 2, cwd=trained)
    assert done.returncode == 0, done.stderr[-3000:]
    report = trained / 'work_dirs' / 'distributed' / 'report' / 'metrics.json'
    trained_metrics = json.loads(report.read_text())['metrics']
    # Each process has batch statistics of its own until they are averaged: the checkpoint must be what was validated.
    checkpoint = trained / 'work_dirs' / 'distributed' / 'epoch_1.pth'
    run_here(trained, 'test.py', config, checkpoint, '--work-dir', trained / 'again')
    tested = json.loads((trained / 'again' / 'report' / 'metrics.json').read_text())['metrics']
    assert tested == trained_metrics


def test_a_work_dir_that_cannot_be_made_is_named(trained, tmp_path, run_here):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match=rf'--work-dir: expected a folder .* got {tmp_path}/file/below'):
        run_here(trained, 'train.py', 'recipe.py', '--work-dir', tmp_path / 'file' / 'below')


def test_a_seed_gets_folders_of_its_own(trained, run_here):
    run_here(trained, 'train.py', 'stage.py', '--seed', '3', '--cfg-options', 'train_cfg.max_epochs=1')
    assert (trained / 'work_dirs' / 'stage-seed3' / 'epoch_1.pth').is_file()
