"""The random states of Python, NumPy and torch, in containers that a weights-only checkpoint can hold."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ['get_random_state', 'seed_cpu', 'set_random_state']


def get_random_state(*, cuda: bool = False) -> dict[str, Any]:
    """Return the states of the process.

    Args:
        cuda: Whether that of the current CUDA device, if there is one, is included; reading it waits for the device.

    Returns:
        Tuples, numbers and tensors (uint8 or int64, on the CPU).
    """
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    state = {
        'python': random.getstate(),
        'numpy': (torch.from_numpy(keys.astype(np.int64)), *rest),
        'torch': torch.get_rng_state(),
    }
    if cuda and torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set what :func:`get_random_state` returned, be it moved to another device since.

    Args:
        state: A state of CUDA is left out on a machine without a GPU.
    """
    random.setstate(state['python'])
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def seed_cpu(seed: int) -> None:
    """Seed Python, NumPy and torch's CPU generator; ``torch.manual_seed`` would seed every GPU too.

    Args:
        seed: 0..2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
