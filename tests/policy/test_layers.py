"""Imports point one way: functional <- losses, heads, samplers, evaluation <- hooks, models <- tools, configs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmkd_ext'
MIDDLE = {'losses', 'heads', 'samplers', 'datasets', 'evaluation', 'visualization'}
HOSTS = {'mmpretrain', 'mmseg', 'mmdet', 'mmrazor'}

# What each layer may import from the package, beside itself.
INTERNAL = {
    'functional': set(),
    'distill': {'functional'},
    'registry': {'environment'},
    'environment': set(),
    'version': set(),
    '__init__': {'environment', 'version'},
    'checkpoint': set(),
    **{layer: {'functional', 'registry', 'heads'} for layer in MIDDLE},
    'models': {'functional', 'distill', 'registry', 'checkpoint'} | MIDDLE,
    'hooks': {'functional', 'distill', 'registry', 'checkpoint', 'models'} | MIDDLE,
    'discover': {'functional', 'distill', 'registry', 'checkpoint', 'models'} | MIDDLE,
}
# The pure layers know no OpenMMLab package.
WITHOUT_MM = {'functional', 'distill', 'environment', 'version', '__init__'}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names.add(node.module)
    return names


def _layer(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix('.py')


FILES = sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    layer = _layer(path)
    for name in _imports(path):
        parts = name.split('.')
        if parts[0] == 'mmkd_ext' and len(parts) > 1:
            assert parts[1] in INTERNAL[layer] | {layer}, f'{layer} must not import {name}'
        assert parts[0] not in {'tools', 'configs', 'tests'}
        if layer in WITHOUT_MM:
            assert not parts[0].startswith('mm') or parts[0] == 'mmkd_ext', f'{layer} must not import {name}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_host_is_imported_at_module_level(path):
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        assert not {name.split('.')[0] for name in names} & HOSTS


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_of_a_user_is_unpickled_without_a_guard(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {'pickle.load', 'pickle.loads', 'np.load', 'numpy.load'}, f'{path}: {called}'
        if called == 'torch.load':
            assert any(k.arg == 'weights_only' and getattr(k.value, 'value', None) is True for k in node.keywords)
