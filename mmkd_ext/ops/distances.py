r"""Vectors of length 1, products of vectors, and distances between those of a batch.

* Length 1 is made in two ways on purpose: :func:`unit_rows` for what a loss differentiates, its gradient bounded, and
  :func:`settled_unit_rows` for weights, idempotent to the bit. :func:`unit_features` is for arrays.
* Smooth functions of squared distances take :func:`squared_distances`, which autograd differentiates.
* Losses of the distances themselves, or of their ratios, take :func:`pairwise` and :func:`position_gradient`.

The Gram matrix gives all distances of a batch for the price of one matrix product, and loses what it subtracts: with
an offset of a thousand spreads, or between near-duplicates, nothing is left of a float32 distance. Three things help
:func:`pairwise`:

* features are centred, and in float64 also divided by a power of two, which costs no digit;
* on the CPU, one pair that float32 cannot resolve, or lengths near its limits, are enough to redo the batch in
  float64, and leave to take products in shorter numbers (``torch.set_float32_matmul_precision``) to do it at once;
* on other devices, which must know float64, all is float64 from the start: to look for such a pair would make the
  host wait in every step.

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), P of these at a
time, D dims.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmkd_ext.ops.precision import once, products_are_exact

__all__ = [
    'EQUAL',
    'SMALLEST_SQUARE',
    'Points',
    'gram_rows',
    'inner_products',
    'pairwise',
    'position_gradient',
    'row_parts',
    'settled_unit_rows',
    'squared_distances',
    'unit_features',
    'unit_rows',
]

_SHORTEST = 1e-6
# From so many multiplications on, a symmetric product is computed in stripes, each only from the diagonal on: up to
# four, of at least so many rows.
_STRIPED, _STRIPES, _STRIPE = 2**25, 4, 128


def unit_rows(x: Tensor) -> Tensor:
    r"""Scale every vector to length 1; one shorter than 1e-6 has no direction and stays as it is.

    ``torch.nn.functional.normalize`` divides such a vector by its eps instead, :math:`10^{-12}`: the gradient at a zero
    vector is then multiplied by :math:`10^{12}`. Here no gradient is ever multiplied by more than :math:`10^6`, at a
    zero vector by 1.

    Args:
        x: Vectors, shape (..., D), float32 or float64.

    Returns:
        The same shape; lengths are 1, or below 1e-6.
    """
    norm_X1 = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm_X1 > _SHORTEST, norm_X1, 1.0)


@torch.no_grad()
def settled_unit_rows(weight: Tensor) -> Tensor:
    """Scale every vector to length 1, idempotent to the bit: one that has it stays as it is.

    A vector whose norm is 1 up to rounding (4 machine epsilons) is returned as it is, so a second call changes nothing:
    training resumed from saved unit weights sees the very weights that uninterrupted training sees. To divide again
    would move last bits. A zero vector stays zero; one shorter than 1e-12 is divided by 1e-12.

    Args:
        weight: Shape (..., D), any floating dtype.

    Returns:
        Same shape and dtype, without gradient.
    """
    # Float64 and a cascaded sum, or the norm's own rounding would exceed the tolerance for large D.
    # Apple's devices have no float64.
    norm_dtype = torch.float32 if weight.device.type == 'mps' else torch.float64
    norm = weight.to(norm_dtype).square().sum(dim=-1, keepdim=True).sqrt()
    is_unit = (norm - 1).abs() <= 4 * torch.finfo(weight.dtype).eps
    return torch.where(is_unit, weight, weight / norm.clamp_min(1e-12).to(weight.dtype))


def unit_features(features_ND: np.ndarray) -> np.ndarray:
    """Scale the rows of an array to length 1, as clusterings and maps compare them; a row of zeros stays.

    Args:
        features_ND: (N, D) floats.

    Returns:
        The same shape and dtype.
    """
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    return features_ND / np.where(length_N1 > 0, length_N1, 1)


def inner_products(x_ND: Tensor, rows: slice | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Products of some rows with all, and the squared lengths of both.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: Rows of the relation; None for all.

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
        rows: Rows of the relation.

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

    For losses of smooth functions of the square; see :func:`pairwise` for those that need the distance itself, or its
    ratios, between points that nearly coincide.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: Rows of the relation; None for all.

    Returns:
        Shape (R, N), >= 0; of a row to itself 0, up to rounding if only some rows are asked for.
    """
    # Distances do not see a shift, so no gradient goes through it; without it the products would drown differences.
    x_ND = x_ND - x_ND.detach().mean(dim=0)
    product_RN, square_R1, square_N = inner_products(x_ND, rows)
    return (square_R1 + square_N - 2 * product_RN).clamp(min=0)


# --------------------------------------------------------------------------------------------------
# Distances within a batch, exact where single precision cannot know them.

# A squared distance under this share of |x|^2 + |y|^2 has lost too many of float32's digits: its error is near 1e-7 of
# that sum, so 1e-5 of the distance at the border.
_UNRESOLVED = 1e-2
# Up to this share float64 cannot tell two points apart either: a relative distance of 6e-8, one digit of float32.
EQUAL = 16 * torch.finfo(torch.float64).eps
# Bounds of the power of two, and the smallest squared distance in that unit: gradients then stay inside float32.
_EXPONENTS = (-60, 1000)
SMALLEST_SQUARE = 1e-30
# Largest squared length of a batch between which float32 needs no unit.
_UNSCALED = (1e-10, 1e10)
# Entries of a matrix that are worked on at a time on a CPU: with their temporaries they stay in its cache.
_PART = 2**17


class Points(NamedTuple):
    """A batch as points in space: features = centre + unit * x.

    Attributes:
        x_ND: Centred coordinates; None for a teacher, whose gradient nobody asks for.
        square_RN: Squared distances; exactly 0 on the diagonal and for points that coincide, else positive. None when
            they are no longer needed.
        unit: Power of two, a scalar tensor.
        rows: Which points the first axis of ``square_RN`` means.
        dtype: Of the features; that of the measurement may be more precise.
        is_resolved: Whether the dtype of the measurement knows all these distances. :func:`pairwise` returns no others.
    """

    x_ND: Tensor | None
    square_RN: Tensor | None
    unit: Tensor
    rows: slice
    dtype: torch.dtype
    is_resolved: bool


def pairwise(student: Tensor, teacher: Tensor, rows: slice | None = None) -> tuple[Points, Points]:
    """Measure two batches in one dtype that resolves all their distances.

    Not differentiable: losses with a gradient in closed form use it, see :func:`position_gradient`. Losses of one step
    that compare the same features share the result, see :func:`~mmkd_ext.ops.precision.sharing`.

    Args:
        student: Shape (N, Ds), float32 or float64.
        teacher: Shape (N, Dt), float32 or float64.
        rows: Points whose distances to all are wanted; None for all.

    Returns:
        Points of the student and of the teacher, both float32 or both float64; not to be written to.
    """
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    bounds = None if rows is None else (rows.start, rows.stop)
    if dtype == torch.float32 and student.device.type == 'cpu' and products_are_exact():
        points = once(_measure, student.detach(), torch.float32, bounds)
        if points.is_resolved:
            other = once(_measure, teacher.detach(), torch.float32, bounds)
            if other.is_resolved:
                return points, other._replace(x_ND=None)
    points, other = (once(_measure, x.detach(), torch.float64, bounds) for x in (student, teacher))
    return points, other._replace(x_ND=None)


def row_parts(x_RN: Tensor) -> list[slice]:
    """Cut the rows of a matrix such that temporaries of a part stay in a CPU's cache; all in one on a GPU."""
    num_rows, num_columns = x_RN.shape
    size = max(_PART // num_columns, 1) if x_RN.device.type == 'cpu' else num_rows
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, max(size, 1))]


def position_gradient(points: Points, slope_RN: Tensor) -> Tensor:
    r"""Carry the gradient from squared distances to the features.

    .. math:: \frac{\partial L}{\partial x} = 2 (\mathrm{diag}(A \mathbf{1}) - A)\, x, \qquad
        A_{ij} = \frac{\partial L}{\partial d_{ij}^2} + \frac{\partial L}{\partial d_{ji}^2}

    Args:
        points: What :func:`pairwise` made of the features.
        slope_RN: Rows of the symmetric :math:`A`, those of ``points.rows``; its diagonal does not matter. Overwritten.

    Returns:
        Gradient in the features, shape (N, D), 0 but in ``points.rows``.
    """
    sum_R = slope_RN.sum(dim=1)
    slope_RN.neg_().diagonal(points.rows.start).add_(sum_R)
    pulled_RD = slope_RN.mul_(2 / points.unit) @ points.x_ND
    if len(pulled_RD) == len(points.x_ND):
        return pulled_RD
    gradient_ND = torch.zeros_like(points.x_ND)
    gradient_ND[points.rows] = pulled_RD
    return gradient_ND


def _measure(x_ND: Tensor, dtype: torch.dtype, bounds: tuple[int, int] | None) -> Points:
    """Measure in this dtype; stop where float32 does not resolve a pair, and float64 has to."""
    rows = slice(*bounds) if bounds else slice(0, len(x_ND))
    given = x_ND.dtype
    x_ND, unit = _centred(x_ND.to(dtype))
    gram_RN, norm_N = gram_rows(x_ND, rows)
    unresolved = Points(None, None, unit, rows, given, is_resolved=False)
    if dtype == torch.float32 and not _UNSCALED[0] < norm_N.amax() < _UNSCALED[1]:
        return unresolved
    for part in row_parts(gram_RN):
        own = slice(rows.start + part.start, rows.start + part.stop)
        norm_P1 = norm_N[own, None]
        square_PN = torch.sub(norm_P1, gram_RN[part], alpha=2, out=gram_RN[part]).add_(norm_N)
        square_PN.diagonal(own.start).fill_(torch.inf)
        if dtype == torch.float64:
            square_PN.masked_fill_(square_PN <= (norm_P1 + norm_N).mul_(EQUAL).clamp_(min=SMALLEST_SQUARE), 0)
        elif not _are_resolved(square_PN, norm_P1, norm_N):
            return unresolved
        square_PN.diagonal(own.start).fill_(0)
    return Points(x_ND, gram_RN, unit, rows, given, is_resolved=True)


def _are_resolved(square_PN: Tensor, norm_P1: Tensor, norm_N: Tensor) -> bool:
    """Whether float32 knows these squared distances; the host waits for the answer."""
    # The closest pair of a row is mostly far enough to pass for a pair with the longest vector, too.
    smallest_P1 = _UNRESOLVED * (norm_P1 + norm_N.amax()) + SMALLEST_SQUARE
    if bool((square_PN.amin(dim=1, keepdim=True) > smallest_P1).all()):
        return True
    return bool((square_PN > (norm_P1 + norm_N).mul_(_UNRESOLVED).clamp_(min=SMALLEST_SQUARE)).all())


def _centred(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Around the mean; float64, the last resort, in units of the power of two over the largest magnitude."""
    if x_ND.dtype == torch.float32:
        return x_ND - x_ND.mean(dim=0), x_ND.new_ones(())
    low, high = torch.aminmax(x_ND)
    exponent = torch.frexp(torch.maximum(-low, high)).exponent.clamp(*_EXPONENTS)
    unit = torch.ldexp(x_ND.new_ones(()), exponent)
    x_ND = x_ND / unit
    return x_ND.sub_(x_ND.mean(dim=0)), unit
