"""Imports point one way: ops <- functional, scores, clustering <- shells <- models, hooks <- discover <- cli."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmkd_ext'
HOSTS = {'mmpretrain', 'mmseg', 'mmdet', 'mmrazor'}

# What each room may import from the package, beside itself; from the ground floor up.
GROUND = {'io', 'ops'}
PURE = GROUND | {'functional', 'scores', 'clustering', 'pictures'}
SHELLS = {'losses', 'heads', 'samplers', 'datasets', 'evaluation', 'transforms', 'visualization'}
BESIDE = {'registry', 'checkpoint', 'deprecation', 'io', 'pictures'}
INTERNAL = {
    '__init__': {'environment', 'version'},
    'version': set(),
    'environment': set(),
    'deprecation': set(),
    'checkpoint': {'io'},
    'pictures': set(),
    'registry': {'environment'},
    'io': set(),
    'ops': {'io'},
    'functional': {'ops', 'deprecation'},
    'scores': {'ops'},
    'clustering': {'ops', 'scores'},
    'distill': {'io', 'ops', 'scores', 'deprecation'},
    'transforms': {'ops', 'registry'},
    'datasets': {'ops', 'transforms'} | BESIDE,
    **dict.fromkeys(('losses', 'heads', 'samplers', 'evaluation', 'visualization'), PURE | BESIDE),
    'engine': PURE | BESIDE | {'distill', 'samplers'},
    'models': PURE | BESIDE | {'distill', 'engine'} | SHELLS,
    'hooks': PURE | BESIDE | {'distill', 'engine', 'models'} | SHELLS,
    'discover': PURE | BESIDE | {'distill', 'engine', 'models', 'hooks'} | SHELLS,
    '__main__': {'cli', 'version'},
    'cli': PURE | BESIDE | {'distill', 'engine', 'models', 'hooks', 'discover', 'environment', 'version'} | SHELLS,
}
# The pure layers know no OpenMMLab package.
WITHOUT_MM = PURE | {'distill', 'environment', 'version', 'deprecation', '__init__'}


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


def test_imports_point_one_way():
    wrong = []
    for path in FILES:
        layer = _layer(path)
        for name in _imports(path):
            top, *rest = name.split('.')
            if top == 'mmkd_ext' and rest and rest[0] not in INTERNAL[layer] | {layer}:
                wrong.append(f'{path}: {layer} must not import {name}')
            if top in {'tools', 'configs', 'tests', 'benchmarks', 'reproduce'} or (
                layer in WITHOUT_MM and top.startswith('mm') and top != 'mmkd_ext'
            ):
                wrong.append(f'{path}: {layer} must not import {name}')
    assert wrong == []


def test_the_rooms_have_no_circle():
    reached: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, ' -> '.join((*above, room))
        if room not in reached:
            below = [height(other, (*above, room)) for other in INTERNAL[room]]
            reached[room] = 1 + max(below, default=0)
        return reached[room]

    assert (height('io'), height('ops')) == (1, 2)
    assert max(map(height, INTERNAL)) == height('__main__')


def test_a_method_imports_torch_and_ops_alone():
    for path in (PACKAGE / 'functional').glob('[a-z]*.py'):
        ours = {name for name in _imports(path) if name.startswith('mmkd_ext')}
        assert all(name.startswith('mmkd_ext.ops.') for name in ours), f'{path}: {ours}'


def test_no_host_is_imported_at_module_level():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            assert not {name.split('.')[0] for name in names} & HOSTS, path


def test_no_file_of_a_user_is_unpickled_without_a_guard():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {'pickle.load', 'pickle.loads', 'np.load', 'numpy.load'}, f'{path}: {called}'
            if called == 'torch.load':
                only = [k.value for k in node.keywords if k.arg == 'weights_only']
                assert len(only) == 1, path
                assert getattr(only[0], 'value', None) is True, path
