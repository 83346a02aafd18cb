"""The tools around a discovery, as a user calls them: discover, infer, export. Blots of four kinds, one epoch."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def _run(folder: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(ROOT / 'tools' / tool), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    root, generator = tmp_path_factory.mktemp('blots'), np.random.default_rng(0)
    for index in range(40):
        kind = index % 4
        place = root / 'known' / 'ab'[kind] if kind < 2 else root / 'all'
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (8, 8), dtype=np.uint8) + 40 * kind
        Image.fromarray(pixels.astype(np.uint8)).save(place / f'{index}.png')
    (root / 'all' / 'broken.png').write_bytes(b'')
    return root


def test_discover_then_infer_then_export(folder, run_here):
    done = _run(folder, 'discover.py', 'known', 'all', '--epochs', '1', '--num-novel', '2')
    assert done.returncode == 0, done.stderr[-3000:]
    assert '40 images: 20 labelled of 2 classes, 20 unlabelled; 1 broken files' in done.stdout
    with pytest.raises(SystemExit, match='add --resume'):
        run_here(folder, 'discover.py', 'known', 'all', '--epochs', '1', '--num-novel', '2')

    done = _run(folder, 'infer.py', 'discovered', 'all', '--csv', 'again.csv')
    assert done.returncode == 0, done.stderr[-3000:]
    assert "broken: 'all/broken.png'" in done.stdout
    tables = ('discovered/assignments.csv', 'again.csv')
    first, second = (list(csv.DictReader((folder / name).read_text().splitlines())) for name in tables)
    assert [(row['path'], row['cluster']) for row in first] == [(row['path'], row['cluster']) for row in second]

    done = _run(folder, 'export.py', 'discovered', '--backbone', 'backbone.pth')
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / 'backbone.pth').is_file()


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('discover.py', ('known', 'all', '--num-novel', '0'), "a number of at least 1, or auto, but got '0'"),
        ('export.py', ('discovered',), 'expected --onnx FILE or --backbone FILE but got neither'),
    ],
)
def test_wrong_arguments_are_explained(folder, run_here, capsys, tool, arguments, message):
    with pytest.raises(SystemExit) as end:
        run_here(folder, tool, *arguments)
    assert end.value.code == 2
    assert message in ' '.join(capsys.readouterr().err.split())
