"""Random numbers as a function of counters: what is drawn for a sample depends on nothing that happened before.

A generator with a state gives each sample what its turn brings, so that the numbers change with the batch size, the
number of processes, and where a run was resumed. Here they are a hash of integers that name the draw. They are made on
the host: who knows them can group samples by them without asking an accelerator.

Shape suffixes: B samples, N numbers per sample.
"""

import numpy as np

from mmkd_ext.functional.hashing import mix_bits

__all__ = ['counter_keys', 'counter_uniform']

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
