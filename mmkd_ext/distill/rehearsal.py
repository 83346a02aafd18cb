"""Runs a model once without leaving a trace, to find mistakes before training begins."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

__all__ = ['rehearse', 'same_randomness']


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
