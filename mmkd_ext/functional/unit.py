"""Directions of vectors, with a gradient that stays bounded at zero.

Shape suffixes: N rows, D dims.
"""

import torch
from torch import Tensor

__all__ = ['unit_rows']

_SHORTEST = 1e-6


def unit_rows(x_ND: Tensor) -> Tensor:
    r"""Scale every row to length 1; a row shorter than 1e-6 has no direction and stays as it is.

    ``torch.nn.functional.normalize`` divides such a row by its eps instead, :math:`10^{-12}`: the gradient at a zero
    row is then multiplied by :math:`10^{12}`. Here no gradient is ever multiplied by more than :math:`10^6`, at a zero
    row by 1.

    Args:
        x_ND: Vectors, shape (N, D), float32 or float64.

    Returns:
        The same shape; lengths are 1, or below 1e-6.
    """
    norm_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True)
    return x_ND / torch.where(norm_N1 > _SHORTEST, norm_N1, 1.0)
