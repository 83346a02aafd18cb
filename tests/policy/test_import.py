"""``import mmkd_ext`` is light, and every registry finds its own members without ``custom_imports``."""

import subprocess
import sys


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_neither_torch_nor_mmengine():
    assert _run('import sys, mmkd_ext; print({"torch", "mmengine", "numpy"} & set(sys.modules))').strip() == 'set()'


def test_functional_and_distill_load_no_openmmlab_package():
    code = (
        'import sys, mmkd_ext.functional, mmkd_ext.distill; '
        'print([m for m in sys.modules if m.startswith("mm") and not m.startswith(("mmap", "mmkd_ext"))])'
    )
    assert _run(code).strip() == '[]'


def test_prefix_alone_finds_a_type():
    code = (
        'import warnings; warnings.simplefilter("ignore")\n'
        'from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, init_default_scope\n'
        'init_default_scope("mmengine")\n'
        'for root, name in ((MODELS, "NCDClassifier"), (MODELS, "ClassRelationLoss"), (HOOKS, "DistillHook"),\n'
        '        (DATASETS, "NovelClassSplit"), (METRICS, "NovelClassMetric"), (DATA_SAMPLERS, "QuotaBatchSampler")):\n'
        '    assert root.get("mmkd_ext." + name) is not None, name\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
