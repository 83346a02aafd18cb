r"""Relational knowledge distillation (RKD): the shape of a batch in feature space, as distances and as angles.

Both losses are sums over tuples of samples of a Huber loss between the relation that the student sees and the one that
the teacher sees. Value and gradient are computed together, in closed form, from squared distances alone: the published
formula writes N x N x D differences, this one needs memory for a few N x N matrices.

Shape suffixes: N samples, D dims, V vertices, I and K samples at the end of the two arms of an angle.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_choice, check_pair, check_positive, full_precision
from mmkd_ext.functional.pairwise import Points, pairwise, position_gradient

__all__ = ['check_rkd_settings', 'rkd_angle', 'rkd_distance']

_REDUCTIONS = ('official', 'distinct', 'sum')
# Cosines are computed in tiles of (vertices, ends, ends): a few fit a CPU core's cache; a GPU wants fewer launches.
_CPU_TILE, _GPU_TILE = (16, 64), (64, 256)


@full_precision
def rkd_distance(student: Tensor, teacher: Tensor, *, delta: float = 1.0, reduction: str = 'official') -> Tensor:
    r"""How differently two networks see the distances between samples, each in units of its own mean distance.

    .. math:: \ell = \frac{1}{N^2} \sum_{i, j} l_\delta\big(\psi(s_i, s_j) - \psi(t_i, t_j)\big), \qquad
        \psi(x_i, x_j) = \frac{\lVert x_i - x_j \rVert}{\mu}, \quad
        \mu = \frac{1}{N (N - 1)} \sum_{i \ne j} \lVert x_i - x_j \rVert

    with the Huber loss :math:`l_\delta`. Blind to rotation, shift and scale; gradient flows through the student's
    :math:`\mu`, so none of it points along the features.

    From "Relational Knowledge Distillation", Park et al., CVPR 2019, arXiv 1904.05068, Section 3.2.1. The paper sums
    over distinct pairs; weights in use (25 for classification, 1 for metric learning) belong to the official code's
    mean over all :math:`N^2` entries, the default here.

    Points that coincide have distance 0 (published code: :math:`10^{-6}`) and do not push each other. A batch collapsed
    to one point has :math:`\psi = 0`, thus a high loss. The gradient of a sample is at most
    :math:`4 \delta / (N \mu)`.

    Args:
        student: Features :math:`s` of any shape (N, ...).
        teacher: Features :math:`t` of the same samples, any shape (N, ...); no gradient flows to them.
        delta: :math:`\delta` where Huber's loss turns from square to linear; 1 in paper and code.
        reduction: ``'official'`` divides by :math:`N^2`, ``'distinct'`` by the number :math:`N (N - 1)` of pairs,
            ``'sum'`` by 1 as the paper's equation.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, a setting is out of range, or a value is NaN
            (:func:`check_pair`).
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.
    """
    return _relation('rkd_distance', 2, student, teacher, delta, reduction)


@full_precision
def rkd_angle(student: Tensor, teacher: Tensor, *, delta: float = 1.0, reduction: str = 'official') -> Tensor:
    r"""How differently two networks see the angles of all triangles of samples.

    .. math:: \ell = \frac{1}{N^3} \sum_{i, j, k} l_\delta\big(\psi(s_i, s_j, s_k) - \psi(t_i, t_j, t_k)\big), \qquad
        \psi(x_i, x_j, x_k) = \cos \angle x_i x_j x_k
        = \frac{d_{ij}^2 + d_{jk}^2 - d_{ik}^2}{2 \, d_{ij} d_{jk}}

    with the vertex in the middle, :math:`d_{ij} = \lVert x_i - x_j \rVert`, and the Huber loss :math:`l_\delta`. Blind
    to rotation, shift and scale. Takes :math:`O(N^3 + N^2 D)` operations and :math:`O(N^2 + N D)` memory.

    From "Relational Knowledge Distillation", Park et al., CVPR 2019, arXiv 1904.05068, Section 3.2.2. The paper sums
    over distinct triplets; weights in use (50 for classification, 2 for metric learning) belong to the official code's
    mean over all :math:`N^3` entries, the default here.

    An arm between points that coincide has no direction: its cosines are 0, as in published code, and it passes no
    gradient, where published code multiplies by :math:`10^{12}`. The gradient of sample :math:`i` is at most
    :math:`(4 \delta / N^2) \sum_j 1 / d_{ij}` over the samples that do not coincide with it.

    Args:
        student: Features :math:`s` of any shape (N, ...).
        teacher: Features :math:`t` of the same samples, any shape (N, ...); no gradient flows to them.
        delta: :math:`\delta` where Huber's loss turns from square to linear; 1 in paper and code.
        reduction: ``'official'`` divides by :math:`N^3`, ``'distinct'`` by the number :math:`N (N - 1) (N - 2)` of
            triplets, ``'sum'`` by 1 as the paper's equation.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than three samples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, a setting is out of range, or a value is NaN
            (:func:`check_pair`).
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.
    """
    return _relation('rkd_angle', 3, student, teacher, delta, reduction)


def check_rkd_settings(who: str, delta: float, reduction: str) -> None:
    """Refuse settings that the two losses cannot use; modules call it when they are built.

    Args:
        who: Function or class that speaks in the error.
        delta: Positive.
        reduction: ``'official'``, ``'distinct'`` or ``'sum'``.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """
    check_positive(who, delta=delta)
    check_choice(who, _REDUCTIONS, reduction=reduction)


def _relation(kind: str, order: int, student: Tensor, teacher: Tensor, delta: float, reduction: str) -> Tensor:
    check_rkd_settings(kind, delta, reduction)
    check_pair(kind, student, teacher)
    num_samples = len(student)
    if num_samples < order:
        return student[:0].sum()
    with_gradient = torch.is_grad_enabled() and student.requires_grad
    loss, _ = _operator(student.flatten(1), teacher.detach().flatten(1), kind, float(delta), with_gradient)
    divisors = {'official': num_samples**order, 'distinct': math.perm(num_samples, order), 'sum': 1}
    return loss / divisors[reduction]


def _closed_form(
    student_ND: Tensor, teacher_ND: Tensor, kind: str, delta: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Huber loss summed over all ordered tuples, and its gradient in the student (empty if not asked for)."""
    student, teacher = pairwise(student_ND, teacher_ND)
    loss, slope_NN = _SUMS[kind](student, teacher, delta, with_gradient)
    gradient_ND = student_ND.new_empty(0) if slope_NN is None else position_gradient(student, slope_NN)
    return loss.to(torch.promote_types(student_ND.dtype, teacher_ND.dtype)), gradient_ND.to(student_ND.dtype)


# An operator of its own, so that torch.compile calls it as a whole instead of unrolling its loops over tiles.
_operator = torch.library.custom_op('mmkd_ext::rkd', _closed_form, mutates_args=())


@_operator.register_fake
def _(student_ND: Tensor, teacher_ND: Tensor, kind: str, delta: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(student_ND.dtype, teacher_ND.dtype)
    shape = student_ND.shape if with_gradient else (0,)
    return student_ND.new_empty((), dtype=dtype), student_ND.new_empty(shape)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.kind = inputs[2]
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            f'{ctx.kind}: expected a first-order backward but got create_graph=True; the gradient is a closed form '
            f'without a graph of its own, so leave this loss out of what is differentiated twice'
        )
    (gradient_ND,) = ctx.saved_tensors
    return grad * gradient_ND, None, None, None, None


_operator.register_autograd(_backward, setup_context=_keep_gradient)


def _distance_sum(student: Points, teacher: Points, delta: float, with_slope: bool) -> tuple[Tensor, Tensor | None]:
    distance_NN, target_NN = student.square_NN.sqrt(), teacher.square_NN.sqrt()
    inverse_mean, inverse_target_mean = _inverse_mean(distance_NN), _inverse_mean(target_NN)
    gap_NN = distance_NN * inverse_mean - target_NN.mul_(inverse_target_mean)
    huber_NN = gap_NN.clamp(-delta, delta)
    loss = gap_NN.sub_(huber_NN, alpha=0.5).mul_(huber_NN).sum()
    if not with_slope:
        return loss, None
    # d psi / d d^2 = (1 - [psi's share through the mean]) / (2 d mu); coinciding points have no slope.
    num_samples = len(distance_NN)
    through_mean = (huber_NN * distance_NN).sum() * inverse_mean / (num_samples * (num_samples - 1))
    inverse_NN = distance_NN.masked_fill_(distance_NN == 0, torch.inf).reciprocal_()
    return loss, huber_NN.sub_(through_mean).mul_(inverse_NN.mul_(inverse_mean))


def _inverse_mean(distance_NN: Tensor) -> Tensor:
    """One over the mean distance of distinct samples; 0 if all of them coincide."""
    num_samples = len(distance_NN)
    total = distance_NN.sum()
    return torch.where(total > 0, num_samples * (num_samples - 1) / total, 0)


def _angle_sum(student: Points, teacher: Points, delta: float, with_slope: bool) -> tuple[Tensor, Tensor | None]:
    square_NN = student.square_NN
    slope_NN = torch.zeros_like(square_NN) if with_slope else None
    loss = square_NN.new_zeros((), dtype=torch.float64)  # thousands of tiles add up
    num_vertices, num_ends = _CPU_TILE if square_NN.device.type == 'cpu' else _GPU_TILE
    for vertices in _slices(len(square_NN), num_vertices):
        arms, teacher_arms = _Arms(square_NN, vertices), _Arms(teacher.square_NN, vertices)
        product_sum_VN, cosine_sum_VN = torch.zeros_like(arms.square_VN), torch.zeros_like(arms.square_VN)
        for rows, columns, weight in _half_of_pairs(len(square_NN), num_ends):
            cosine_VIK, product_VIK = arms.cosines(rows, columns)
            gap_VIK = cosine_VIK - teacher_arms.cosines(rows, columns)[0]
            huber_VIK = gap_VIK.clamp(-delta, delta)
            loss += weight * _huber_sum(gap_VIK.flatten(), huber_VIK.flatten())
            if slope_NN is not None:
                product_VIK *= huber_VIK
                cosine_VIK *= huber_VIK
                slope_NN[rows, columns].sub_(product_VIK.sum(dim=0), alpha=weight)
                _add_both_ends(product_sum_VN, product_VIK, rows, columns, weight)
                _add_both_ends(cosine_sum_VN, cosine_VIK, rows, columns, weight)
        if slope_NN is not None:
            slope_NN[vertices] += product_sum_VN.addcmul_(arms.inverse_VN.square(), cosine_sum_VN, value=-1)
    return loss, slope_NN if slope_NN is None else (slope_NN + slope_NN.T).mul_(2)


class _Arms:
    """From V vertices to all samples: squared lengths, and 1 / (sqrt(2) length) with 0 for no length."""

    def __init__(self, square_NN: Tensor, vertices: slice) -> None:
        self.square_NN = square_NN
        self.square_VN = square_NN[vertices]
        self.inverse_VN = (2 * self.square_VN).rsqrt_().masked_fill_(self.square_VN == 0, 0)

    def cosines(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Cosines between arms to ``rows`` and ``columns``; 1 / (2 length length), their slope in the squares."""
        product_VIK = self.inverse_VN[:, rows, None] * self.inverse_VN[:, None, columns]
        numerator_VIK = self.square_VN[:, rows, None] + self.square_VN[:, None, columns]
        return numerator_VIK.sub_(self.square_NN[rows, columns]).mul_(product_VIK), product_VIK


def _huber_sum(gap: Tensor, slope: Tensor) -> Tensor:
    """Huber loss of both orders of a pair, from the gap and its clamped value, which is the loss's slope."""
    return 2 * torch.dot(slope, gap) - torch.dot(slope, slope)


def _slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _half_of_pairs(num_samples: int, size: int) -> Iterator[tuple[slice, slice, float]]:
    """Tiles of (rows, columns) that hold each pair once, with weight 1, or in both orders, with weight 1/2 each."""
    slices = _slices(num_samples, size)
    for place, rows in enumerate(slices):
        yield rows, rows, 0.5
        for columns in slices[place + 1 :]:
            yield rows, columns, 1.0


def _add_both_ends(sum_VN: Tensor, value_VIK: Tensor, rows: slice, columns: slice, weight: float) -> None:
    """Add what each pair of arms contributes to the arm at either end."""
    sum_VN[:, rows].add_(value_VIK.sum(dim=2), alpha=weight)
    sum_VN[:, columns].add_(value_VIK.sum(dim=1), alpha=weight)


# (student, teacher, delta, with_slope) -> (sum, the slope that `position_gradient` takes, or None)
_SUMS = {'rkd_distance': _distance_sum, 'rkd_angle': _angle_sum}
