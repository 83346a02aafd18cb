r"""Distances within a batch, exact where single precision cannot know them.

The Gram matrix gives all distances of a batch for the price of one matrix product, and loses what it subtracts: with an
offset of a thousand spreads, or between near-duplicates, nothing is left of a float32 distance. Three things help:

* features are divided by a power of two and centred, which costs no digit;
* on the CPU, one pair that float32 cannot resolve is enough to redo the batch in float64;
* on other devices, which must know float64, all is float64 from the start: to look for such a pair would make the host
  wait in every step.

Shape suffixes: N samples, R of them whose distances to all are measured, D dims.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmkd_ext.functional.rows import inner_products

__all__ = ['EQUAL', 'SMALLEST_SQUARE', 'Points', 'pairwise', 'position_gradient']

# A squared distance under this share of |x|^2 + |y|^2 has lost too many of float32's digits: its error is near 1e-7 of
# that sum, so 1e-5 of the distance at the border.
_UNRESOLVED = 1e-2
# Up to this share float64 cannot tell two points apart either: a relative distance of 6e-8, one digit of float32.
EQUAL = 16 * torch.finfo(torch.float64).eps
# Bounds of the power of two, and the smallest squared distance in that unit: gradients then stay inside float32.
_EXPONENTS = (-60, 120)
SMALLEST_SQUARE = 1e-30


class Points(NamedTuple):
    """A batch as points in space: features = centre + unit * x.

    Attributes:
        x_ND: Centred coordinates, magnitudes at most 2.
        square_RN: Squared distances; exactly 0 on the diagonal and for points that coincide, else positive.
        unit: Power of two, a scalar tensor.
        rows: Which points the first axis of ``square_RN`` means.
    """

    x_ND: Tensor
    square_RN: Tensor
    unit: Tensor
    rows: slice


def pairwise(student: Tensor, teacher: Tensor, rows: slice | None = None) -> tuple[Points, Points]:
    """Measure two batches in one dtype that resolves all their distances.

    Not differentiable: losses with a gradient in closed form use it, see :func:`position_gradient`.

    Args:
        student: Shape (N, Ds), float32 or float64.
        teacher: Shape (N, Dt), float32 or float64.
        rows: Points whose distances to all are wanted; None for all.

    Returns:
        Points of the student and of the teacher, both float32 or both float64.
    """
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    if dtype == torch.float32 and student.device.type == 'cpu':
        measured = [_measure(x, _UNRESOLVED, rows) for x in (student, teacher)]
        if all(margin_RN.numel() == 0 or bool(margin_RN.amin() > 0) for _, margin_RN in measured):
            return measured[0][0], measured[1][0]
    measured = [_measure(x.double(), EQUAL, rows) for x in (student, teacher)]
    for points, margin_RN in measured:
        points.square_RN.masked_fill_(margin_RN <= 0, 0)
    return measured[0][0], measured[1][0]


def position_gradient(points: Points, slope_RN: Tensor) -> Tensor:
    r"""Carry the gradient from squared distances to the features.

    .. math:: \frac{\partial L}{\partial x} = 2 (\mathrm{diag}(A \mathbf{1}) - A)\, x, \qquad
        A_{ij} = \frac{\partial L}{\partial d_{ij}^2} + \frac{\partial L}{\partial d_{ji}^2}

    Args:
        points: What :func:`pairwise` made of the features.
        slope_RN: Rows of the symmetric :math:`A`, those of ``points.rows``; its diagonal does not matter.

    Returns:
        Gradient in the features, shape (N, D), 0 but in ``points.rows``.
    """
    pulled_RD = slope_RN.sum(dim=1, keepdim=True) * points.x_ND[points.rows]
    pulled_RD.addmm_(slope_RN, points.x_ND, alpha=-1).mul_(2 / points.unit)
    if len(pulled_RD) == len(points.x_ND):
        return pulled_RD
    gradient_ND = torch.zeros_like(points.x_ND)
    gradient_ND[points.rows] = pulled_RD
    return gradient_ND


def _measure(x_ND: Tensor, share: float, rows: slice | None) -> tuple[Points, Tensor]:
    """Points, and by how much each pair's squared distance exceeds its smallest meaningful value."""
    exponent = torch.frexp(x_ND.abs().amax()).exponent.clamp(*_EXPONENTS)
    unit = torch.ldexp(x_ND.new_ones(()), exponent)
    x_ND = x_ND / unit
    x_ND -= x_ND.mean(dim=0)
    gram_RN, norm_R1, norm_N = inner_products(x_ND, rows)
    size_RN = norm_R1 + norm_N
    rows = rows or slice(0, len(x_ND))
    square_RN = torch.sub(size_RN, gram_RN, alpha=2, out=gram_RN)
    square_RN.diagonal(rows.start).fill_(0)
    margin_RN = torch.sub(square_RN, size_RN.mul_(share).clamp_(min=SMALLEST_SQUARE), out=size_RN)
    margin_RN.diagonal(rows.start).fill_(torch.inf)
    return Points(x_ND, square_RN, unit, rows), margin_RN
