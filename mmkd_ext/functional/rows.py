"""Directions of vectors and distances between them, differentiable, with gradients bounded at zero.

Shape suffixes: N rows, R chosen ones among them, D dims.
"""

import torch
from torch import Tensor

__all__ = ['gram_rows', 'inner_products', 'squared_distances', 'unit_rows']

_SHORTEST = 1e-6
# From so many multiplications on, a symmetric product is computed in stripes, each only from the diagonal on: up to
# four, of at least so many rows.
_STRIPED, _STRIPES, _STRIPE = 2**25, 4, 128


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


def inner_products(x_ND: Tensor, rows: slice | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Products of some rows with all, and the squared lengths of both.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: The rows; None for all.

    Returns:
        Shapes (R, N), (R, 1), (N,).
    """
    product_RN = x_ND[rows or slice(None)] @ x_ND.T
    square_N = product_RN.diagonal() if rows is None else x_ND.square().sum(dim=1)
    return product_RN, square_N[rows or slice(None), None], square_N


def gram_rows(x_ND: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Products of some rows with all, and the squared lengths of all, without a graph.

    Where all rows are asked for on a CPU, the half of the products above the diagonal is computed and copied.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: The rows.

    Returns:
        Shapes (R, N), (N,).
    """
    num_samples = len(x_ND)
    if rows != slice(0, num_samples) or x_ND.device.type != 'cpu' or num_samples**2 * x_ND.shape[1] < _STRIPED:
        product_RN, _, square_N = inner_products(x_ND, None if rows == slice(0, num_samples) else rows)
        return product_RN, square_N.clone()
    product_NN = x_ND.new_empty(num_samples, num_samples)
    height = max(-(-num_samples // _STRIPES), _STRIPE)
    for start in range(0, num_samples, height):
        stripe, rest = slice(start, start + height), slice(start + height, None)
        torch.mm(x_ND[stripe], x_ND[start:].T, out=product_NN[stripe, start:])
        product_NN[rest, stripe] = product_NN[stripe, rest].T
    return product_NN, product_NN.diagonal().clone()


def squared_distances(x_ND: Tensor, rows: slice | None = None) -> Tensor:
    """Squared distances of some rows to all, precise also far from the origin.

    For losses of smooth functions of the square. Those that need the distance itself, or its ratios, between points
    that nearly coincide use :mod:`mmkd_ext.functional.pairwise`.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: The rows; None for all.

    Returns:
        Shape (R, N), >= 0; of a row to itself 0, up to rounding if only some rows are asked for.
    """
    # Distances do not see a shift, so no gradient goes through it; without it the products would drown differences.
    x_ND = x_ND - x_ND.detach().mean(dim=0)
    product_RN, square_R1, square_N = inner_products(x_ND, rows)
    return (square_R1 + square_N - 2 * product_RN).clamp(min=0)
