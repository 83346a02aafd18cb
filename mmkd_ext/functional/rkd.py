r"""Relational knowledge distillation (RKD): the shape of a batch in feature space, as distances and as angles.

Both losses are sums over tuples of samples of a Huber loss between the relation that the student sees and the one that
the teacher sees. Value and gradient are computed together, in closed form, from squared distances alone: the published
formula writes N x N x D differences, this one needs memory for a few N x N matrices.

Shape suffixes: N samples, D dims, R rows of the relation.
"""

import math
from typing import Any

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_choice, check_pair, check_positive, refuse_second_derivative
from mmkd_ext.functional.pairwise import pairwise, position_gradient
from mmkd_ext.functional.rkd_sums import angle_sum, distance_sum
from mmkd_ext.functional.sharing import full_precision, sharing

__all__ = ['check_rkd_settings', 'rkd_angle', 'rkd_distance']

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
            (:func:`~mmkd_ext.functional.gather.own_rows`). They exchange their parts of :math:`\mu`; the result is a
            part of the loss, and parts add up to it, as gradients do. None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, a setting is out of range, or a value is NaN
            (:func:`check_pair`).
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.
    """
    return _relation('rkd_distance', 2, student, teacher, delta, reduction, rows)


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
            (:func:`~mmkd_ext.functional.gather.own_rows`); the result is then its part, and parts add up to the loss.
            None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than three samples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, a setting is out of range, or a value is NaN
            (:func:`check_pair`).
        RuntimeError: In backward with ``create_graph=True``: there is no second derivative.
    """
    return _relation('rkd_angle', 3, student, teacher, delta, reduction, rows)


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


def _relation(
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
        loss = _Relation.apply(*features, kind, float(delta), with_gradient, bounds)
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
    student = student._replace(square_RN=None)
    gradient_ND = student_ND.new_empty(0) if slope_RN is None else position_gradient(student, slope_RN)
    return loss.to(torch.promote_types(student_ND.dtype, teacher_ND.dtype)), gradient_ND.to(student_ND.dtype)


class _Relation(torch.autograd.Function):
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


# (student, teacher, delta, with_slope, rows) -> (sum, the slope that `position_gradient` takes, or None)
_SUMS = {'rkd_distance': distance_sum, 'rkd_angle': angle_sum}
