"""Configs read as notes from the laboratory, and a method has one word in every place. Each test is one loop."""

import ast
import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

from mmkd_ext.models.build import find_config

ROOT = Path(__file__).parents[2]
TABLES = SimpleNamespace(**runpy.run_path(str(ROOT / '.ci/readme_tables.py')))
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
NO_METHODS = {'supervised', 'mmseg'}  # students alone, teachers and first stages; a host project


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_header_says_what_it_is_how_to_run_it_and_what_to_expect():
    wrong = []
    for path in CONFIGS:
        header = TABLES.header_of(path)
        if not header.partition('\n')[0].endswith('.'):
            wrong.append(f'{_name(path)}: expected a first line that says what it is')
        if f'mmkd train {_name(path)}' not in header:
            wrong.append(f'{_name(path)}: expected its command')
        for word in ('Cost: ', 'Result: '):
            line = TABLES.line_of(header, word)
            if len(line) < 6 or re.search(r'[A-Z]{4,}_[A-Z]', line):
                wrong.append(f'{_name(path)}: expected a line "{word}..." without placeholders but got {line!r}')
    assert wrong == []


def test_the_body_is_short():
    def length(path: Path) -> int:
        header = ast.parse(path.read_text()).body[0]
        return sum(bool(line.strip()) for line in path.read_text().splitlines()[header.end_lineno :])

    assert {_name(path): length(path) for path in CONFIGS if length(path) > 20} == {}


def test_a_method_has_one_word_in_every_place():
    words = {path.stem for path in (ROOT / 'mmkd_ext/functional').glob('[a-z]*.py')} | {'cur'}
    assert {path.stem for path in (ROOT / 'docs/methods').glob('[a-z]*.md')} == words
    assert {path.parent.name for path in CONFIGS} == words | NO_METHODS
    for path in CONFIGS:
        assert path.name.startswith((f'{path.parent.name}_', f'{path.parent.name}-')), _name(path)
    for word in sorted(words):
        page = ROOT / f'docs/methods/{word}.md'
        assert page.read_text().splitlines()[2].startswith('Compares '), f'{_name(page)}: expected "Compares ..."'
        places = TABLES.places_of(page)
        assert places['formula'][0].endswith(f'/{word}.py'), _name(page)
        assert places['module'][0].endswith(f'/{word}.py'), _name(page)
        assert places['configs'] == [f'configs/{word}'], _name(page)
        assert [name for names in places.values() for name in names if not (ROOT / name).exists()] == [], _name(page)


def test_the_tables_of_readmes_are_made_from_what_they_list():
    for readme in TABLES.readmes():
        text = readme.read_text()
        assert text == TABLES.with_tables(readme), f'{_name(readme)} is out of date; run python .ci/readme_tables.py'
        missing = [path.name for path in CONFIGS if path.parent == readme.parent and f'[`{path.name}`]' not in text]
        assert missing == [], _name(readme)


def test_a_renamed_config_is_found_under_its_new_name():
    renamed = json.loads((ROOT / 'configs/renamed.json').read_text())
    for old, new in renamed.items():
        assert not (ROOT / 'configs' / old).exists(), old
        assert find_config(old).resolve() == (ROOT / 'configs' / new).resolve(), new
        assert find_config(Path(old).stem).resolve() == (ROOT / 'configs' / new).resolve(), new
