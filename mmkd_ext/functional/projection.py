"""Features of two networks brought to one width without anything to train.

Shape suffixes: W wide, K narrow.
"""

import functools

import torch
from torch import Tensor

__all__ = ['match_channels']


def match_channels(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    r"""Project the network with more channels onto as many random directions as the other has channels.

    The directions are orthonormal, drawn once from a fixed seed: the same in every step, process and run. A random
    projection keeps inner products and distances up to a common factor, in expectation. Values per channel keep their
    size. This takes the place of the adapters that papers train on the student, because a distillation term of this
    package has no weights of its own.

    Args:
        student: Features, shape (N, C, ...).
        teacher: Features, shape (N, C', ...).

    Returns:
        Both with min(C, C') channels; as they came if these are equal.
    """
    wide, narrow = max(student.shape[1], teacher.shape[1]), min(student.shape[1], teacher.shape[1])
    if wide == narrow:
        return student, teacher
    basis_WK = _orthonormal_columns(wide, narrow, student.dtype, student.device)
    if student.shape[1] == wide:
        return _project(student, basis_WK), teacher
    return student, _project(teacher, basis_WK)


def _project(x: Tensor, basis_WK: Tensor) -> Tensor:
    return (x.movedim(1, -1) @ basis_WK).movedim(-1, 1)


@functools.lru_cache(maxsize=16)
def _orthonormal_columns(wide: int, narrow: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    basis_WK, triangle_KK = torch.linalg.qr(torch.randn(wide, narrow, generator=generator, dtype=torch.float64))
    # The factorisation leaves signs open; fixed, they are the same with every linear algebra library.
    return (basis_WK * triangle_KK.diagonal().sign()).to(device, dtype)
