"""Random numbers as a function of counters, such as a seed, a step and a place: what draws them resumes exactly.

A generator with a state gives each sample what its turn brings, so that the numbers change with the batch size, the
number of processes, and where a run was resumed. Here they are a hash of integers that name the draw, in three forms:

* :func:`uniform_noise` for a tensor, on its device and without a wait for it;
* :func:`counter_keys` and :func:`counter_uniform` for samples, on the host: who knows their numbers can group samples
  by them without asking an accelerator;
* :func:`seeded_generator` for what torch draws itself.

Shape suffixes: B samples, N numbers per sample.
"""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

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


# --------------------------------------------------------------------------------------------------
# Numbers of samples.

_MANTISSA_BITS = 53


def counter_keys(*words: int | np.ndarray) -> np.ndarray:
    """Hash integers, such as a seed, an iteration and the indices of samples, to one key per sample.

    Keys are spread evenly and without regard to their neighbours by SplitMix64 (Steele, Lea and Flood, Fast Splittable
    Pseudorandom Number Generators, OOPSLA 2014, section 3), applied to one word after the other.

    Args:
        *words: Integers in -2^63..2^64 - 1 and integer arrays, which broadcast. Their order matters.

    Returns:
        Keys of the broadcast shape, uint64.
    """
    keys = np.zeros(1, dtype=np.uint64)
    for word in words:
        word = np.asarray(word % 2**64 if isinstance(word, int) else word).astype(np.uint64)
        keys = mix_bits((keys + word).view(np.int64)).view(np.uint64)
    return keys


def counter_uniform(keys_B: np.ndarray, stream: int, num: int) -> np.ndarray:
    """Draw numbers that are uniform in [0, 1).

    Args:
        keys_B: (B,) of :func:`counter_keys`.
        stream: Number of the draw; other streams of the same keys are independent.
        num: N, numbers per key.

    Returns:
        (B, N), float64, multiples of 2^-53.
    """
    bits_BN = counter_keys(keys_B[:, None], stream, np.arange(num))
    return (bits_BN >> np.uint64(64 - _MANTISSA_BITS)).astype(np.float64) * 2.0**-_MANTISSA_BITS


def seeded_generator(*words: int, device: torch.device | str = 'cpu') -> torch.Generator:
    """Make a generator whose numbers depend on every one of some integers, such as a seed and an iteration.

    Neighbouring integers give unrelated numbers (NumPy's ``SeedSequence``); a sum of them as seed would make the second
    iteration of seed 0 the first one of seed 1.

    Args:
        *words: Integers >= 0.
        device: Where the generator draws.

    Returns:
        A generator of its own for each call.
    """
    (seed,) = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed))
