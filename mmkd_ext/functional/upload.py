"""Arrays of the host on an accelerator, without a wait."""

import numpy as np
import torch
from torch import Tensor

__all__ = ['upload']


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy of an array on a device; on the CPU, a tensor that shares its memory.

    From ordinary memory, a copy to a GPU may wait for all work that is queued there. From pinned memory it is queued
    itself, and torch keeps that memory until the copy is done.

    Args:
        array: Of any shape and numeric dtype.
        device: Where to.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return (tensor.pin_memory() if device.type == 'cuda' else tensor).to(device, non_blocking=True)
