"""Every room of the package has a room of tests, and the other way round."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / 'mmkd_ext', ROOT / 'tests'
FREE = {'docs', 'policy', 'integration', 'distributed', 'golden', 'oracles'}


def test_every_room_has_its_tests():
    rooms = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob('*/**/*.py')}
    tested = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob('*/**/test_*.py')}
    assert rooms == tested - FREE


def test_rooms_are_not_to_be_cut_to_pieces():
    short = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob('*.py')
        if path.name not in {'__init__.py', 'version.py'} and len(path.read_text().splitlines()) < 30
    ]
    assert short == [], 'a file that exists to keep another short'


def test_a_file_is_one_idea():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob('*.py')}
    assert {name: number for name, number in lines.items() if number > 550} == {}
    assert len([name for name in lines if not name.endswith('__init__.py')]) <= 150
