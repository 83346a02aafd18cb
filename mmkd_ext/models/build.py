"""Finds and reads configs of any OpenMMLab project, and builds their models."""

import difflib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmkd_ext.models.weights import LoadReport, load_weights, part_of, surplus_entries  # where they were before
from mmkd_ext.registry import MODELS

__all__ = [
    'LoadReport',
    'build_model_from_config',
    'dicts_in',
    'find_config',
    'is_published',
    'load_weights',
    'part_of',
    'read_config',
    'shown_config',
    'surplus_entries',
]

_OWN = 'mmkd_ext'
SHIPPED = Path(__file__).parents[1] / '.mim' / 'configs'
"""The configs of this package: a folder of the wheel, a link in a checkout."""


def build_model_from_config(config: str | Path) -> nn.Module:
    """Build ``model`` of a config file as the Runner would: under its ``default_scope``, with its data preprocessor.

    Args:
        config: What :func:`find_config` takes: a path, ``'<package>::<path>'``, or the name of one of ours.

    Raises:
        FileNotFoundError: There is no such config.
        ModuleNotFoundError: The package is not installed.
        ValueError: The config has no ``model``.
    """
    cfg = read_config(config)
    if 'model' not in cfg:
        raise ValueError(f'build_model_from_config: expected a config with a model but {config} has {sorted(cfg)}')
    model: dict[str, Any] = cfg.model
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if 'default_scope' in cfg:
        model.setdefault('_scope_', cfg.default_scope)
    return MODELS.build(model)


def read_config(config: str | Path) -> Config:
    """Read a config file, or one that an installed package ships.

    ``_base_ = 'mmkd_ext::...'`` in it means the text of that config, as if it lay beside: mmengine would look for all
    types of such a base in the scope ``mmkd_ext`` alone, where those of the host projects are not.

    Args:
        config: What :func:`find_config` takes.

    Raises:
        FileNotFoundError: There is no such config.
        ModuleNotFoundError: The package is not installed.
    """
    cfg = Config.fromfile(find_config(config))
    if f'{_OWN}::' in cfg.text:
        for node in dicts_in(cfg._cfg_dict):
            if node.get('_scope_') == _OWN:
                del node['_scope_']
    return cfg


def find_config(config: str | Path) -> Path:
    """Return the file of a config.

    mmengine's own look-up of what packages ship runs ``pip install`` for a package that it does not find.

    Args:
        config: A path; ``'<package>::<path>'`` for what an installed package ships; or, where there is no such file, a
            path below the configs of this package or the name of one of them, such as ``'crkd_convnet_80e_digits'``.

    Raises:
        FileNotFoundError: There is no such config; near misses are listed.
        ModuleNotFoundError: The package is not installed.
    """
    package, is_shipped, path = str(config).partition('::')
    if not is_shipped:
        return Path(config) if Path(config).is_file() else _find_own(str(config), str(config))
    if package == _OWN:
        return _find_own(path, str(config))
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f'config: expected the package {package!r} of {config!r} but it is not installed; '
            'install it, or give the path of a config file',
            name=package,
        )
    file = Path(spec.submodule_search_locations[0], '.mim', 'configs', path if path.endswith('.py') else f'{path}.py')
    if not file.is_file():
        raise FileNotFoundError(f'config: expected the config {config!r} at {file} but found none')
    return file


def is_published(config: str | Path) -> bool:
    """Whether another package ships this config, so that its weights are to be downloaded and not to be trained."""
    package, is_shipped, _ = str(config).partition('::')
    return bool(is_shipped) and package != _OWN


def shown_config(path: str | Path) -> str:
    """Return a config as one would type it: relative to here, or ``'mmkd_ext::<path>'`` for one of this package."""
    file, here = Path(path).resolve(), Path.cwd().resolve()
    if file.is_relative_to(here):
        return str(file.relative_to(here))
    return f'{_OWN}::{file.relative_to(SHIPPED.resolve())}' if file.is_relative_to(SHIPPED.resolve()) else str(file)


def _find_own(path: str, given: str) -> Path:
    """A config of this package by its path below ``configs`` or by its name alone, of today or of version 0.1."""
    wanted = path.removeprefix('configs/').removesuffix('.py') + '.py'
    own = {str(file.relative_to(SHIPPED)): file for file in sorted(SHIPPED.glob('*/**/*.py'))}
    renamed = json.loads((SHIPPED / 'renamed.json').read_text())
    own.update({old: own[new] for old, new in renamed.items()})
    names = {Path(name).name: file for name, file in own.items() if '_base_' not in file.parts}
    found = own.get(wanted) or names.get(wanted)
    if found is None:
        close = difflib.get_close_matches(Path(wanted).name, names, n=3, cutoff=0.5)
        near = [f'{names[name].parent.name}/{name}' for name in close]
        raise FileNotFoundError(
            f'config: expected a config file, or the name of one that {_OWN} ships, but got {given!r}; '
            + (f'did you mean {" or ".join(near)}?' if near else f'these are in {SHIPPED}')
        )
    return found


def dicts_in(node: Any) -> Iterator[dict]:
    """Yield ``node`` if it is a dict, and every dict inside, in dicts, lists and tuples of any depth."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from dicts_in(child)
