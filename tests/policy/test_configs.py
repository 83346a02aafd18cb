"""A config reads as a note from the laboratory: what it is, the command, the cost, the result. And it is short."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
IDS = [str(path.relative_to(ROOT / 'configs')) for path in CONFIGS]


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_the_header_says_what_it_is_how_to_run_it_and_what_to_expect(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert header, 'no docstring'
    assert header.splitlines()[0].endswith('.')
    assert f'python tools/train.py {path.relative_to(ROOT)}' in header
    for word in ('Cost: ', 'Result: '):
        line = next((line for line in header.splitlines() if line.startswith(word)), '')
        assert len(line) > len(word) + 5, f'no line "{word}..."'
        assert not re.search(r'[A-Z]{4,}_[A-Z]', line), f'a placeholder is left: {line}'


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_the_body_is_short(path):
    tree = ast.parse(path.read_text())
    header = tree.body[0]
    body = [line for line in path.read_text().splitlines()[header.end_lineno :] if line.strip()]
    assert len(body) <= 30


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_a_method_has_one_name_in_every_place(path):
    method = path.relative_to(ROOT / 'configs').parts[0]
    assert re.match(rf'{method}[_-]', path.name)
    assert (path.parent / 'README.md').is_file(), f'configs/{method} has no README.md'


def test_every_method_folder_names_its_configs_in_its_readme():
    for path in CONFIGS:
        assert path.name in (path.parent / 'README.md').read_text(), f'{path.name} is missing in its README.md'
