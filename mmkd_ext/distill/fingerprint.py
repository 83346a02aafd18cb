"""Digests that tell whether two runs have the same data, settings and weights."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ['fingerprint', 'model_fingerprint']


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a value, the same in every process and on every machine.

    Args:
        value: Numbers, strings, bytes, None, classes, arrays, tensors, and lists, tuples and dicts of them. Lists and
            tuples count as the same, and so do numbers of Python and NumPy.

    Raises:
        TypeError: For anything else, whose text could change from run to run.
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a model: its modules as they describe themselves, parameters and buffers, bit for bit."""
    return fingerprint([str(model), dict(model.state_dict())])


def _parts(value: Any) -> Iterator[bytes]:
    """Yield bytes that together belong to one value only: each part says how long it is."""
    if isinstance(value, Mapping):
        yield f'dict {len(value)} '.encode()
        for name in sorted(value, key=str):
            yield from _parts(name)
            yield from _parts(value[name])
    elif isinstance(value, (list, tuple)):
        yield f'list {len(value)} '.encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, torch.Tensor):
        yield f'tensor {value.dtype} {tuple(value.shape)} '.encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f'array {value.dtype.str} {value.shape} '.encode()
        yield value.tobytes()
    else:
        text = _text(value)
        yield f'{len(text)} '.encode()
        yield text


def _text(value: Any) -> bytes:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, type):
        return f'class {value.__module__}.{value.__qualname__}'.encode()
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return f'{type(value).__name__} {value!r}'.encode()
    raise TypeError(f'fingerprint: expected numbers, text, arrays and tensors but got {type(value).__name__}')
