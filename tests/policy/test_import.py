"""``import mmkd_ext`` is light, and every registry finds its own members without ``custom_imports``."""

import subprocess
import sys

# One process: what each step loads adds to what is there.
SCRIPT = """
import sys, warnings
warnings.simplefilter('error')
import mmkd_ext
heavy = {'torch', 'mmengine', 'numpy'} & set(sys.modules)
assert not heavy, f'import mmkd_ext loads {heavy}'

import mmkd_ext.functional, mmkd_ext.distill
hosts = [name for name in sys.modules if name.startswith('mm') and not name.startswith(('mmap', 'mmkd_ext'))]
assert not hosts, f'functional and distill load {hosts}'

warnings.simplefilter('ignore')  # of the hosts
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, init_default_scope
init_default_scope('mmengine')
for registry, name in (
    (MODELS, 'NCDClassifier'), (MODELS, 'ClassRelationLoss'), (HOOKS, 'DistillHook'), (DATASETS, 'NovelClassSplit'),
    (METRICS, 'NovelClassMetric'), (DATA_SAMPLERS, 'QuotaBatchSampler'),
):
    assert registry.get('mmkd_ext.' + name) is not None, f'the prefix alone does not find {name}'
"""


def test_import_is_light_the_pure_rooms_know_no_host_and_the_prefix_alone_finds_a_type():
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
