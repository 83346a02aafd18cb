"""Runs a model once without leaving a trace, to find mistakes before training begins."""

import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Give the random numbers drawn inside back: Python's, NumPy's, and torch's on the CPU and on ``device``."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def same_state(*roots: Any) -> Iterator[None]:
    """Give objects, and what they hold, the state back that they had: attributes, containers, generators.

    Transforms of a data set may keep samples that they have seen (CachedMosaic, CachedMixUp), count them, or draw from
    a generator of their own. Held objects are followed through attributes, lists and dicts, not into long ones, which
    are annotations. Arrays and tensors that are written to in place, and shared memory, are not given back.

    Args:
        *roots: Data sets, transforms, modules.
    """
    undo: list[Callable[[], object]] = []
    known: dict[int, Any] = {}  # the objects too, so that none is deleted and its id given to another
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if id(value) not in known and not isinstance(value, _NOT_FOLLOWED):
            known[id(value)] = value
            undo += _undo(value)
            waiting += _parts(value)
    try:
        yield
    finally:
        for step in undo:
            step()


_NOT_FOLLOWED = (type, ModuleType, FunctionType, BuiltinFunctionType, Tensor, np.ndarray, logging.Logger)
_LONGEST = 1000
"""Of a list of transforms, data sets or cached samples; longer ones are annotations, which nobody changes."""


def _undo(value: Any) -> list[Callable[[], object]]:
    """Return what gives an object its state back."""
    if isinstance(value, np.random.Generator):
        return [partial(setattr, value.bit_generator, 'state', value.bit_generator.state)]
    if isinstance(value, torch.Generator):
        return [partial(value.set_state, value.get_state())]
    if isinstance(value, np.random.RandomState):
        return [partial(value.set_state, value.get_state(legacy=False))]
    if isinstance(value, random.Random):
        return [partial(value.setstate, value.getstate())]
    return [partial(_refill, value, value.copy())] if isinstance(value, (list, dict, set, deque)) else []


def _parts(value: Any) -> list[Any]:
    """Return what an object holds."""
    parts: list[Any] = [vars(value)] if hasattr(value, '__dict__') else []
    if isinstance(value, partial):
        parts += [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, MethodType):
        parts.append(value.__self__)
    elif isinstance(value, (Mapping, list, tuple, set, deque)) and len(value) <= _LONGEST:
        parts += value.values() if isinstance(value, Mapping) else value
    return parts


def _refill(container: Any, content: Any) -> None:
    if isinstance(container, list):
        container[:] = content
    else:
        container.clear()
        (container.extend if isinstance(container, deque) else container.update)(content)


def rehearse(model: nn.Module, **call: Any) -> Any:
    """Return ``model(**call)``, computed in the model's present mode but on copies of its parameters and buffers.

    Batch statistics, queues and momentum encoders change in the copies only, and attributes that the forward sets are
    set back, so training begins bit-identical to one without the rehearsal. Parameters need gradients as in training,
    which shows taps that get none. A copy of the model itself would not do: activation checkpointing leaves a closure
    in it that still calls the original.

    Args:
        model: It takes up its memory a second time for the duration of the call.
        **call: Arguments of its forward.
    """
    tensors = {
        name: tensor.detach().clone().requires_grad_(tensor.requires_grad)
        for tensors in (model.named_parameters(), model.named_buffers())
        for name, tensor in tensors
    }
    attributes = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        return functional_call(model, tensors, kwargs=call)
    finally:
        for present, before in attributes:
            present.clear()
            present.update(before)
