"""Random numbers as a function of a seed, a step and a place: no state, no generator, no wait for a device.

The same numbers come out on every device and in every process, at any time: what draws them resumes exactly once it
knows its step.
"""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ['mix_bits', 'uniform_noise']

_Bits = TypeVar('_Bits', Tensor, np.ndarray)


def mix_bits(x: _Bits) -> _Bits:
    """Scramble 64 bits: the output function of the generator SplitMix64; products wrap around.

    Args:
        x: Any int64 tensor, or an int64 array of one or more dimensions.

    Returns:
        The same shape; different numbers stay different.
    """
    x = x - 0x61C8864680B583EB
    x = (x ^ _shift_right(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift_right(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift_right(x, 31)


def uniform_noise(shape: tuple[int, ...], seed: int, step: Tensor) -> Tensor:
    """Uniform random numbers that depend on seed, step and place alone.

    Args:
        shape: Of the result.
        seed: Other seeds give independent numbers.
        step: int64, a scalar; other steps give independent numbers. The result is on its device.

    Returns:
        float32 in [0, 1 - 2**-23], multiples of 2**-23.
    """
    stream = mix_bits(mix_bits(torch.full_like(step, seed)) ^ step)
    place = torch.arange(torch.Size(shape).numel(), device=step.device).view(shape)
    return _shift_right(mix_bits(stream + place), 41).float() / 2**23


def _shift_right(x: _Bits, bits: int) -> _Bits:
    return (x >> bits) & (2 ** (64 - bits) - 1)
