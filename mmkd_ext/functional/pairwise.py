r"""Distances within a batch, exact where single precision cannot know them.

The Gram matrix gives all distances of a batch for the price of one matrix product, and loses what it subtracts: with an
offset of a thousand spreads, or between near-duplicates, nothing is left of a float32 distance. Three things help:

* features are divided by a power of two and centred, which costs no digit;
* on the CPU, one pair that float32 cannot resolve is enough to redo the batch in float64;
* on other devices, which must know float64, all is float64 from the start: to look for such a pair would make the host
  wait in every step.

Shape suffixes: N samples, D dims.
"""

from typing import NamedTuple

import torch
from torch import Tensor

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
        square_NN: Their squared distances; exactly 0 on the diagonal and for points that coincide, else positive.
        unit: Power of two, a scalar tensor.
    """

    x_ND: Tensor
    square_NN: Tensor
    unit: Tensor


def pairwise(student: Tensor, teacher: Tensor) -> tuple[Points, Points]:
    """Measure two batches in one dtype that resolves all their distances.

    Not differentiable: losses with a gradient in closed form use it, see :func:`position_gradient`.

    Args:
        student: Shape (N, Ds), float32 or float64.
        teacher: Shape (N, Dt), float32 or float64.

    Returns:
        Points of the student and of the teacher, both float32 or both float64.
    """
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    if dtype == torch.float32 and student.device.type == 'cpu':
        measured = [_measure(x, _UNRESOLVED) for x in (student, teacher)]
        if all(bool(margin_NN.amin() > 0) for _, margin_NN in measured):
            return measured[0][0], measured[1][0]
    measured = [_measure(x.double(), EQUAL) for x in (student, teacher)]
    for points, margin_NN in measured:
        points.square_NN.masked_fill_(margin_NN <= 0, 0)
    return measured[0][0], measured[1][0]


def position_gradient(points: Points, slope_NN: Tensor) -> Tensor:
    r"""Carry the gradient from squared distances to the features.

    .. math:: \frac{\partial L}{\partial x} = 2 (\mathrm{diag}(A \mathbf{1}) - A)\, x, \qquad
        A_{ij} = \frac{\partial L}{\partial d_{ij}^2} + \frac{\partial L}{\partial d_{ji}^2}

    Args:
        points: What :func:`pairwise` made of the features.
        slope_NN: :math:`A`, symmetric, shape (N, N); its diagonal does not matter.

    Returns:
        Gradient in the features, shape (N, D).
    """
    pulled_ND = slope_NN.sum(dim=1, keepdim=True) * points.x_ND
    return pulled_ND.addmm_(slope_NN, points.x_ND, alpha=-1).mul_(2 / points.unit)


def _measure(x_ND: Tensor, share: float) -> tuple[Points, Tensor]:
    """Points, and by how much each pair's squared distance exceeds its smallest meaningful value."""
    exponent = torch.frexp(x_ND.abs().amax()).exponent.clamp(*_EXPONENTS)
    unit = torch.ldexp(x_ND.new_ones(()), exponent)
    x_ND = x_ND / unit
    x_ND -= x_ND.mean(dim=0)
    gram_NN = x_ND @ x_ND.T
    norm_N = gram_NN.diagonal().clone()
    size_NN = norm_N[:, None] + norm_N
    square_NN = torch.sub(size_NN, gram_NN, alpha=2, out=gram_NN).fill_diagonal_(0)
    margin_NN = torch.sub(square_NN, size_NN.mul_(share).clamp_(min=SMALLEST_SQUARE), out=size_NN)
    return Points(x_ND, square_NN, unit), margin_NN.fill_diagonal_(torch.inf)
