"""Every module of the package has its test at the mirrored path, and every test its module."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / 'mmkd_ext', ROOT / 'tests'
FREE = {'policy', 'integration', 'distributed'}


def test_every_module_has_its_test():
    expected = {
        path.relative_to(PACKAGE).with_name(f'test_{path.name}')
        for path in PACKAGE.rglob('*.py')
        if path.name not in {'__init__.py', 'version.py'}
    }
    found = {path.relative_to(TESTS) for path in TESTS.rglob('test_*.py')}
    assert sorted(expected - found) == []
    assert sorted(path for path in found - expected if path.parts[0] not in FREE) == []
