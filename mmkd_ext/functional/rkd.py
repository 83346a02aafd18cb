r"""Relational knowledge distillation (RKD): the shape of a batch in feature space, as distances and as angles.

Both losses are sums over tuples of samples of a Huber loss between the relation that the student sees and the one that
the teacher sees. Value and gradient are computed together, in closed form, from squared distances alone: the published
formula writes N x N x D differences, this one needs memory for a few N x N matrices.

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), P of these at a
time, D dims (all dimensions of a sample, flattened).
"""

import math
from typing import Any

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import (
    check_choice,
    check_pair,
    check_positive,
    full_precision,
    refuse_second_derivative,
    sharing,
)
from mmkd_ext.ops.distributed import sum_with_grad
from mmkd_ext.ops.geometry import Points, angle_path, angle_sum_by, pairwise, position_gradient, row_parts

_TILE = 128


def distance_sum(
    student: Points, teacher: Points, delta: float, with_slope: bool, rows: slice | None = None
) -> tuple[Tensor, Tensor | None]:
    """Huber loss between distances, each over the mean of all pairs, summed over ordered pairs.

    Args:
        student: What :func:`~mmkd_ext.ops.geometry.pairwise` made of its features, of these rows.
        teacher: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Compute the slope, too.
        rows: Rows that this process has while the others have the rest; means then run over processes; None for all.

    Returns:
        The sum, a scalar, and the slope that :func:`~mmkd_ext.ops.geometry.position_gradient` takes, or None.
    """
    distance_RN, target_RN = student.square_RN.sqrt(), teacher.square_RN.sqrt()
    parts = row_parts(distance_RN)
    num_pairs = math.perm(len(student.x_ND), 2)
    zero = distance_RN.new_zeros((), dtype=torch.float64)  # thousands of parts may add up
    totals = (sum((x_RN[part].sum() for part in parts), zero) for x_RN in (distance_RN, target_RN))
    inverse_mean, inverse_target_mean = (_inverse(_over_processes(total, rows), num_pairs) for total in totals)
    loss, pull = zero.clone(), zero.clone()
    for part in parts:
        gap_PN = target_RN[part].mul_(-inverse_target_mean).add_(distance_RN[part] * inverse_mean)
        huber_PN = gap_PN.clamp(-delta, delta)
        loss += gap_PN.sub_(huber_PN, alpha=0.5).mul_(huber_PN).sum()
        if with_slope:
            pull += torch.mul(huber_PN, distance_RN[part], out=gap_PN).sum()
            target_RN[part] = huber_PN
    if not with_slope:
        return loss, None
    through_mean = _over_processes(pull, rows) * inverse_mean / num_pairs
    return loss, _distance_slope(target_RN, distance_RN, through_mean, inverse_mean)


def _distance_slope(huber_RN: Tensor, distance_RN: Tensor, through_mean: Tensor, inverse_mean: Tensor) -> Tensor:
    r"""Turn Huber's slopes into those in the squared distances, in place.

    :math:`d \psi / d d^2` = (1 - [psi's share through the mean]) / (2 d mu); coinciding points have no slope. A
    sample's pairs are all in its row, in both orders: so these rows have the gradient in their own samples complete.
    """
    inverse_RN = torch.threshold_(distance_RN, 0.0, math.inf).reciprocal_()
    return huber_RN.sub_(through_mean).mul_(inverse_RN.mul_(inverse_mean))


def _over_processes(total: Tensor, rows: slice | None) -> Tensor:
    return total if rows is None else sum_with_grad(total)


def _inverse(total: Tensor, count: int) -> Tensor:
    """One over the mean; 0 if there is nothing in total."""
    return torch.where(total > 0, count / total, 0)


def angle_sum(
    student: Points, teacher: Points, delta: float, with_slope: bool, rows: slice | None = None
) -> tuple[Tensor, Tensor | None]:
    """Huber loss between cosines, summed over vertices and ordered pairs of ends.

    Args:
        student: What :func:`~mmkd_ext.ops.geometry.pairwise` made of its features, of all rows.
        teacher: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Compute the slope, too.
        rows: Vertices to sum over; None for all.

    Returns:
        The sum, a scalar, and the slope that :func:`~mmkd_ext.ops.geometry.position_gradient` takes, or None.
    """
    square_NN = student.square_RN
    path = angle_path(square_NN.device, square_NN.dtype)
    sum_up = angle_sum_by(path, exact=torch.float64 in (student.dtype, teacher.dtype))
    loss, slope_NN = sum_up(square_NN, teacher.square_RN, delta, with_slope, rows or student.rows)
    return loss, slope_NN if slope_NN is None else _both_orders(slope_NN)


def _both_orders(slope_NN: Tensor) -> Tensor:
    """Turn M into 2 (M + M^T), in place and tile by tile: at 12,000 samples a second matrix is half a gigabyte."""
    starts = range(0, len(slope_NN), _TILE)
    stripes = [slice(start, start + _TILE) for start in starts]
    for place, i in enumerate(stripes):
        for j in stripes[place:]:
            tile = (slope_NN[i, j] + slope_NN[j, i].T).mul_(2)
            slope_NN[i, j] = tile
            slope_NN[j, i] = tile.T
    return slope_NN


# --------------------------------------------------------------------------------------------------
# The losses.

# (student, teacher, delta, with_slope, rows) -> (sum, the slope that `position_gradient` takes, or None)
_SUMS = {'rkd_distance': distance_sum, 'rkd_angle': angle_sum}
_REDUCTIONS = ('official', 'distinct', 'sum')


@full_precision
def rkd_distance(
    student: Tensor,
    teacher: Tensor,
    *,
    delta: float = 1.0,
    reduction: str = 'official',
    rows: slice | None = None,
) -> Tensor:
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
        rows: Rows of the distances that this process computes while the others compute the rest
            (:func:`~mmkd_ext.ops.distributed.own_rows`). They exchange their parts of :math:`\mu`; the result is a
            part of the loss, and parts add up to it, as gradients do. None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, a setting is out of range, or a value is NaN
            (:func:`check_pair`).
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> rkd_distance(2 * x + 1, x) < 1e-6  # blind to shift and scale
        tensor(True)
        >>> rkd_distance(torch.zeros(3, 2), x) > 0  # collapsed
        tensor(True)
    """
    return _loss('rkd_distance', 2, student, teacher, delta, reduction, rows)


@full_precision
def rkd_angle(
    student: Tensor,
    teacher: Tensor,
    *,
    delta: float = 1.0,
    reduction: str = 'official',
    rows: slice | None = None,
) -> Tensor:
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
        rows: Vertices that this process takes while the others take the rest
            (:func:`~mmkd_ext.ops.distributed.own_rows`); the result is then its part, and parts add up to the loss.
            None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than three samples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, a setting is out of range, or a value is NaN
            (:func:`check_pair`).
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> rkd_angle(2 * x + 1, x) < 1e-6  # blind to shift and scale
        tensor(True)
        >>> rkd_angle(torch.zeros(3, 2), x) > 0  # collapsed
        tensor(True)
    """
    return _loss('rkd_angle', 3, student, teacher, delta, reduction, rows)


def check_rkd_settings(caller: str, delta: float, reduction: str) -> None:
    """Refuse settings that the two losses cannot use; modules call it when they are built.

    Args:
        caller: Function or class that speaks in the error.
        delta: Positive.
        reduction: ``'official'``, ``'distinct'`` or ``'sum'``.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """
    check_positive(caller, delta=delta)
    check_choice(caller, _REDUCTIONS, reduction=reduction)


def _loss(
    kind: str, order: int, student: Tensor, teacher: Tensor, delta: float, reduction: str, rows: slice | None
) -> Tensor:
    check_rkd_settings(kind, delta, reduction)
    check_pair(kind, student, teacher)
    num_samples = len(student)
    if num_samples < order:
        return student[:0].sum()
    with_gradient = torch.is_grad_enabled() and student.requires_grad
    bounds = [] if rows is None else [rows.start, rows.stop]
    features = student.flatten(1), teacher.detach().flatten(1)
    if torch.compiler.is_compiling():
        loss, _ = _operator(*features, kind, float(delta), with_gradient, bounds)
    else:
        loss = _ClosedForm.apply(*features, kind, float(delta), with_gradient, bounds)
    divisors = {'official': num_samples**order, 'distinct': math.perm(num_samples, order), 'sum': 1}
    return loss / divisors[reduction]


def _closed_form(
    student_ND: Tensor, teacher_ND: Tensor, kind: str, delta: float, with_gradient: bool, bounds: list[int]
) -> tuple[Tensor, Tensor]:
    """Huber loss summed over ordered tuples, and its gradient in the student (empty if not asked for).

    ``bounds`` of the rows that are this process's; empty for all. Added up over processes, either result is complete.
    """
    rows = slice(*bounds) if bounds else None
    # The third side of an angle lies between two samples of any rows.
    student, teacher = pairwise(student_ND, teacher_ND, rows if kind == 'rkd_distance' else None)
    loss, slope_RN = _SUMS[kind](student, teacher, delta, with_gradient, rows)
    # The memory of what the sums have read is enough for what follows.
    del teacher
    student = student._replace(square_RN=torch.empty(0))
    gradient_ND = student_ND.new_empty(0) if slope_RN is None else position_gradient(student, slope_RN)
    return loss.to(torch.promote_types(student_ND.dtype, teacher_ND.dtype)), gradient_ND.to(student_ND.dtype)


class _ClosedForm(torch.autograd.Function):
    """The closed form in eager mode."""

    @staticmethod
    def forward(
        ctx: Any,
        student_ND: Tensor,
        teacher_ND: Tensor,
        kind: str,
        delta: float,
        with_gradient: bool,
        bounds: list[int],
    ) -> Tensor:
        loss, gradient_ND = _closed_form(student_ND, teacher_ND, kind, delta, with_gradient, bounds)
        ctx.kind = kind
        ctx.save_for_backward(gradient_ND)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative(ctx.kind)
        return _pulled_back(ctx, grad)


def _pulled_back(ctx: Any, grad: Tensor, _: Tensor | None = None) -> tuple[Tensor | None, ...]:
    (gradient_ND,) = ctx.saved_tensors
    return grad * gradient_ND, None, None, None, None, None


# torch.compile would unroll loops over tiles: it gets an operator that it calls as a whole, which takes longer to call.
# A compiled graph uses memory again without a trace, so the operator shares with nothing outside.
_operator = torch.library.custom_op('mmkd_ext::rkd', sharing()(_closed_form), mutates_args=())


@_operator.register_fake
def _(
    student_ND: Tensor, teacher_ND: Tensor, kind: str, delta: float, with_gradient: bool, bounds: list[int]
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(student_ND.dtype, teacher_ND.dtype)
    shape = student_ND.shape if with_gradient else (0,)
    return student_ND.new_empty((), dtype=dtype), student_ND.new_empty(shape)


_operator.register_autograd(_pulled_back, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output[1]))
