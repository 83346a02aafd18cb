import subprocess
import sys

import pytest

from mmkd_ext import environment


@pytest.fixture
def installed(monkeypatch):
    """Pretend that exactly these distributions are installed; torchvision asks for torch 2.15.0."""

    def pretend(**versions):
        versions = {name.replace('_', '-'): version for name, version in versions.items()}

        def version(name):
            if name not in versions:
                raise environment.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(environment.metadata, 'version', version)
        requires = ['torch==2.15.0', 'numpy', 'gdown; extra == "x"']
        fork = ['transformers<5,>=4.53.0; extra == "multimodal"']
        monkeypatch.setattr(
            environment.metadata, 'requires', lambda name: fork if name == 'onedl-mmpretrain' else requires
        )
        return environment.problems()

    return pretend


GOOD = dict(torch='2.15.0+cu132', torchvision='0.30.0')


@pytest.mark.parametrize('stack', ['mmengine', 'mmengine_lite', 'onedl_mmengine'])
def test_a_good_installation_has_no_problems(installed, stack):
    assert installed(**{stack: '0.10.7'}, **GOOD) == []


def test_no_mmengine_names_both_extras(installed):
    (problem,) = installed(**GOOD)
    assert 'found none' in problem
    assert '.[onedl]' in problem
    assert '.[openmmlab]' in problem


def test_both_stacks_say_what_to_remove(installed):
    (problem,) = installed(mmengine='0.10.7', onedl_mmengine='0.10.12', **GOOD)
    assert 'pip uninstall' in problem


def test_mismatched_pair_says_what_to_upgrade(installed):
    (problem,) = installed(mmengine='0.10.7', torch='2.14.1', torchvision='0.30.0')
    assert 'torchvision 0.30.0 needs torch==2.15.0 but found torch 2.14.1' in problem
    assert 'pip install --upgrade torch torchvision' in problem


@pytest.mark.parametrize('missing', ['torch', 'torchvision'])
def test_missing_torch_is_named(installed, missing):
    present = {name: version for name, version in GOOD.items() if name != missing}
    (problem,) = installed(mmengine='0.10.7', **present)
    assert f'found no {missing};' in problem


MULTIMODAL = dict(onedl_mmengine='0.10.12', pycocotools='2.0.11', **GOOD)


@pytest.mark.parametrize('host', [dict(onedl_mmpretrain='1.3.6'), dict(mmpretrain='1.2.0')])
def test_transformers_beside_which_mmpretrain_cannot_be_imported(installed, host):
    """Real versions: of these, `import mmpretrain.models` ends in "TypeError: NoneType takes no arguments"."""
    (problem,) = installed(transformers='5.0.0', **host, **MULTIMODAL)
    assert 'found transformers 5.0.0' in problem
    assert '`pip install "transformers<5' in problem
    assert '`pip uninstall pycocotools`' in problem
    assert installed(transformers='4.57.1', **host, **MULTIMODAL) == []
    without = {name: version for name, version in MULTIMODAL.items() if name != 'pycocotools'}
    assert installed(transformers='5.0.0', **host, **without) == []
    assert installed(transformers='5.0.0', **MULTIMODAL) == []


def test_import_warns_and_the_registry_raises_without_mmengine(tmp_path):
    """The real thing: a fresh interpreter that cannot find mmengine."""
    code = (
        'import importlib.abc, importlib.metadata, sys, warnings\n'
        'class Hide(importlib.abc.MetaPathFinder):\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name.split(".")[0] == "mmengine": raise ModuleNotFoundError(f"No module {name}", name="mmengine")\n'
        'sys.meta_path.insert(0, Hide())\n'
        'real = importlib.metadata.version\n'
        'def version(name):\n'
        '    if name.endswith("mmengine"): raise importlib.metadata.PackageNotFoundError(name)\n'
        '    return real(name)\n'
        'importlib.metadata.version = version\n'
        'with warnings.catch_warnings(record=True) as caught:\n'
        '    warnings.simplefilter("always")\n'
        '    import mmkd_ext\n'
        'assert any("pip install" in str(w.message) for w in caught), caught\n'
        'import mmkd_ext.functional\n'
        'try:\n'
        '    import mmkd_ext.registry\n'
        'except ModuleNotFoundError as error:\n'
        '    assert "pip install" in str(error), error\n'
        'else:\n'
        '    raise SystemExit("the registry imported")\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
