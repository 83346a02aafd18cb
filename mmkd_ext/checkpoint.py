"""Checkpoints: read without running code from the file, written whole or not at all.

``torch.load(weights_only=True)`` refuses what mmengine's Runner writes, because a log history refers to
``builtins.getattr``. Allowing ``getattr`` itself would open the door to any function, so a stand-in is allowed that
gives exactly the attributes a Runner's checkpoint needs.
"""

import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader, Runner

from mmkd_ext.io import PARTIAL, replacing

__all__ = [
    'ATOMIC',
    'PARTIAL',
    'AtomicLocalBackend',
    'load_checkpoint_safely',
    'register_safe_loader',
    'save_checkpoint',
]

try:
    from numpy._core import multiarray
except ImportError:  # numpy < 2
    from numpy.core import multiarray  # type: ignore[no-redef]  # of another numpy than the one that is checked


_ATTRIBUTES = {
    HistoryBuffer: {'min', 'max', 'mean', 'current'},
    OneCycleParamScheduler: {'_annealing_cos', '_annealing_linear'},
}


_PLAIN_DATA = (
    *('argparse.Namespace', 'types.SimpleNamespace'),  # DINO, MAE, MoCo v3, detr, ... keep their command line
    *('collections.defaultdict', 'builtins.dict', 'builtins.list', 'builtins.int', 'builtins.float', 'typing.Any'),
    *('pathlib.PosixPath', 'pathlib.WindowsPath', 'pathlib.PurePosixPath', 'pathlib.PureWindowsPath'),
    *('pathlib._local.PosixPath', 'pathlib._local.WindowsPath'),
    *('datetime.datetime', 'datetime.date', 'datetime.timedelta', 'builtins.frozenset'),
    *(f'omegaconf.{name}' for name in ('dictconfig.DictConfig', 'listconfig.ListConfig', 'base.ContainerMetadata')),
    *(f'omegaconf.{name}' for name in ('base.Metadata', 'nodes.AnyNode', 'nodes.ValueNode')),
    *('yacs.config.CfgNode', 'fvcore.common.config.CfgNode', 'easydict.EasyDict', 'addict.addict.Dict'),
    *('mmengine.config.config.ConfigDict', 'mmcv.utils.config.ConfigDict'),
    'pytorch_lightning.utilities.parsing.AttributeDict',
    'lightning.pytorch.utilities.parsing.AttributeDict',
    'lightning_fabric.utilities.data.AttributeDict',
    'lightning.fabric.utilities.data.AttributeDict',
)
"""Classes in which training codes keep settings. No code of theirs runs: :class:`_PlainData` takes their place."""


class _PlainData:
    """Stands for a class in ``_PLAIN_DATA``: its objects are dicts of what the file says of them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()  # of what torch lets a file fill, the only one that takes attributes and items alike


class _RefusedAttributeError(ValueError):
    """The file asks ``getattr`` for something that no checkpoint of a Runner needs."""


def load_checkpoint_safely(path: str | Path, map_location: str | torch.device | None = 'cpu') -> dict[str, Any]:
    """Read a checkpoint; no code of the file runs.

    Settings that training codes keep beside the weights, such as an ``argparse.Namespace``, are read as dicts.

    Args:
        path: A file of ``torch.save`` or mmengine's Runner, ``.safetensors``, or an http(s) address, which is
            downloaded once into torch hub's cache.
        map_location: As in ``torch.load``.

    Returns:
        What was saved: a Runner's checkpoint, or a plain state dict.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is corrupt, is no checkpoint, or asks for a function or class that is not allowed.
        ModuleNotFoundError: ``.safetensors`` without the package safetensors.
    """
    if str(path).startswith(('http://', 'https://')):
        path = _download(str(path))
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint: expected a file but found none at {path}')
    checkpoint = (_read_safetensors if path.suffix == '.safetensors' else _read_torch)(path, map_location)
    if not isinstance(checkpoint, dict):
        raise ValueError(f'checkpoint: expected a dict in {path} but got {type(checkpoint).__name__}')
    return checkpoint


def register_safe_loader() -> None:
    """Make mmengine read local files and http(s) addresses with :func:`load_checkpoint_safely`.

    This covers ``load_from``, ``resume`` and ``init_cfg=dict(type='Pretrained', ...)`` of the whole process. It closes
    the unsafe fallback of onedl-mmengine, and makes the original mmengine resume under torch >= 2.6. Prefixes of
    storages and model zoos (``s3://``, ``torchvision://``, ...) keep mmengine's loaders.
    """
    CheckpointLoader.register_scheme(['', 'http://', 'https://'], loader=load_from_path_safely, force=True)


def load_from_path_safely(filename: str, map_location: str | torch.device | None = None) -> dict[str, Any]:
    """Adapt :func:`load_checkpoint_safely` to mmengine, which logs this function's name from character 11 on."""
    return load_checkpoint_safely(filename, map_location)


def _read_torch(path: Path, map_location: str | torch.device | None) -> Any:
    with path.open('rb') as file, _restricted_globals():
        try:
            return torch.load(file, map_location=map_location, weights_only=True)
        except _RefusedAttributeError as error:
            raise ValueError(_refusal(path, [str(error)])) from None
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            refused = _refused_names(path, error)
            if refused:
                raise ValueError(_refusal(path, refused)) from None
            raise ValueError(
                f'checkpoint: expected a file written by torch.save but {path} is corrupt, truncated or of another '
                f'kind ({type(error).__name__}); make or download it again'
            ) from error


def _refusal(path: Path, names: list[str]) -> str:
    return (
        f'checkpoint: expected only tensors and plain data in {path} but it asks for {", ".join(names)}, which could '
        "run code, so it was not loaded; save {'state_dict': model.state_dict()} alone where you trust the file"
    )


def _refused_names(path: Path, error: Exception) -> list[str]:
    """Names of functions and classes in the file that are not allowed; reads the pickle, does not run it."""
    if not isinstance(error, pickle.UnpicklingError):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError:  # torch's format before 1.6, or a plain pickle
        return re.findall(r'GLOBAL (\S+)', str(error)) or _named_in_pickle(path)


def _named_in_pickle(path: Path) -> list[str]:
    """Names that a plain pickle asks for, as far as it can be parsed."""
    names: set[str] = set()
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name == 'GLOBAL':
                names.add(str(argument).replace(' ', '.'))
            elif opcode.name == 'STACK_GLOBAL':
                names.add('.'.join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except ValueError:  # no pickle at all, or cut off
        pass
    return sorted(names)


def _read_safetensors(path: Path, map_location: str | torch.device | None) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'checkpoint: expected the package safetensors to read {path} but found none; run '
            '`pip install safetensors`',
            name='safetensors',
        ) from error
    try:
        return load_file(path, device=str(map_location or 'cpu'))
    except Exception as error:  # safetensors has an exception type of its own
        raise ValueError(f'checkpoint: expected a safetensors file but {path} is corrupt ({error})') from error


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r'-([0-9a-f]{8,})\.', name)
        torch.hub.download_url_to_file(url, str(path), digest and digest[1])
    return path


@contextmanager
def _restricted_globals() -> Iterator[None]:
    """Allow what the process allows already, a Runner's classes, and stand-ins for ``getattr`` and for settings."""
    inherited = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    # A real getattr, allowed elsewhere in the process, would win over the stand-in.
    kept = [entry for entry in inherited if entry is not getattr]
    names = {entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}' for entry in kept}
    plain = [(_PlainData, name) for name in _PLAIN_DATA if name not in names]
    torch.serialization.add_safe_globals([*kept, *_runner_globals(), *plain])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(inherited)


def _runner_globals() -> list[Callable | tuple[Callable, str]]:
    """What the checkpoints of mmengine's Runner refer to, written under numpy 1 or 2."""
    dtypes = {type(np.dtype(code)) for code in '?bBhHiIlLqQefdSU'}
    arrays = [
        (function, f'{module}.multiarray.{name}')
        for module in ('numpy.core', 'numpy._core')
        for name, function in (('_reconstruct', multiarray._reconstruct), ('scalar', multiarray.scalar))
    ]
    return [*_ATTRIBUTES, np.ndarray, np.dtype, *dtypes, *arrays, (_restricted_getattr, 'builtins.getattr')]


def _restricted_getattr(owner: Any, name: str) -> Any:
    if isinstance(owner, type) and name in _ATTRIBUTES.get(owner, ()):
        return getattr(owner, name)
    raise _RefusedAttributeError(f'getattr({owner!r}, {name!r})')


# ----------------------------------------------------------------------------------------------------
# Files that are there whole or not at all.

ATOMIC = 'mmkd_ext.AtomicLocalBackend'
"""Name for ``backend_args=dict(backend=...)`` of mmengine's functions."""


@register_backend(ATOMIC, force=True)
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written under another name, flushed to the disk, and then renamed.

    A process that is killed, or a machine that goes down, leaves the old file or the new one.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes.

        Args:
            obj: Content of the file.
            filepath: Its folder is made where it is missing.
        """
        with replacing(filepath) as partial:
            super().put(obj, partial)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text.

        Args:
            obj: Content of the file.
            filepath: Its folder is made where it is missing.
            encoding: Of the file.
        """
        self.put(obj.encode(encoding), filepath)


def save_checkpoint(runner: Runner, out_dir: str, filename: str, meta: dict[str, Any], **options: Any) -> str:
    """Save a checkpoint, then make it the one that a run resumes from. All processes call this.

    Before the main process writes, hooks of every process that have a method ``before_save_in_all_processes(runner)``
    are called: there they can collect what only they know.

    Args:
        runner: The runner.
        out_dir: Folder.
        filename: Name of the file in it.
        meta: ``epoch`` and ``iter``, the numbers of finished ones.
        **options: More arguments of ``Runner.save_checkpoint``.

    Returns:
        Path of the checkpoint.
    """
    runner.call_hook('before_save_in_all_processes')
    runner.save_checkpoint(out_dir, filename, meta=meta, **options)
    path = get_file_backend(out_dir, backend_args=options.get('backend_args')).join_path(out_dir, filename)
    if is_main_process():
        pointer = Path(runner.work_dir, 'last_checkpoint')
        get_file_backend(pointer, backend_args={'backend': ATOMIC}).put_text(str(path), pointer)
    return str(path)
