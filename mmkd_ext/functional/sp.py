"""Similarity-preserving knowledge distillation (SP).

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), D dims (all
dimensions of a sample, flattened).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_pair, full_precision
from mmkd_ext.ops.geometry import gram_rows
from mmkd_ext.ops.gram import GramSlope, loss_of_gram

_SMALLEST = 1e-6
# Largest squared length of a batch between which squares of products stay inside float32.
_UNSCALED = (1e-8, 1e12)


@full_precision
def similarity_preserving(student: Tensor, teacher: Tensor, *, rows: slice | None = None) -> Tensor:
    r"""How differently two networks spread a sample's similarity over the samples of the batch.

    .. math:: \ell = \frac{1}{N^2} \lVert G(t) - G(s) \rVert_F^2, \qquad
        G(x)_{i:} = \frac{(Q Q^\top)_{i:}}{\lVert (Q Q^\top)_{i:} \rVert_2}

    with :math:`Q` the features, one flattened sample a row. It is the *Gram matrix* whose rows have length 1, not the
    features: :math:`G` is not the cosine similarity. Blind to a rotation of the features and to one scale for all of a
    network's features, not to a scale per sample. Rows have length 1, so :math:`\ell \le 4 / N`, and
    :math:`\ell \le 2 / N` for features after a ReLU: weights near 3000 are usual, and they belong to a batch size.

    From "Similarity-Preserving Knowledge Distillation", Tung & Mori, ICCV 2019, arXiv 1907.09682; equal to
    the code of RepDistiller, which the authors confirmed.

    Features whose products would leave float32 are first divided by the batch's largest magnitude, which the loss
    cannot see. A sample whose Gram row is shorter than 1e-6 of the batch's largest squared length has no similarities:
    its row stays near zero and its gradient is bounded, where published code multiplies it by :math:`10^{12}`.

    Value and gradient are computed in closed form, with two N x N matrices, of which backward needs one.

    Args:
        student: Features :math:`s` of any shape (N, ...).
        teacher: Features :math:`t` of the same samples, any shape (N, ...); no gradient flows to them.
        rows: Rows of the similarities that this process computes while the others compute the rest
            (:func:`~mmkd_ext.ops.distributed.own_rows`); the result is then its part, and parts add up to the loss.
            None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        ValueError: If the numbers of samples differ, or a value is NaN (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]) + 1
        >>> similarity_preserving(2 * x, x) < 1e-6  # blind to scale
        tensor(True)
    """
    caller = 'similarity_preserving'
    check_pair(caller, student, teacher)
    if len(student) < 2:
        return student[:0].sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    with_gradient = torch.is_grad_enabled() and student.requires_grad
    with torch.no_grad():
        student_ND, teacher_ND = (x.flatten(1).to(dtype) for x in (student, teacher))
        loss, x_ND, slope_RN = _closed_form(student_ND, teacher_ND, rows, with_gradient)
    return loss if slope_RN is None else loss_of_gram(caller, student, loss, GramSlope(x_ND, slope_RN, rows=rows))


def _closed_form(
    student_ND: Tensor, teacher_ND: Tensor, rows: slice | None, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss, the student's features as they were multiplied, and its slope in their products, if wanted."""
    student = _similarity(student_ND, rows)
    teacher_RN = _similarity(teacher_ND, rows).row_RN
    gap_RN = torch.sub(student.row_RN, teacher_RN, out=teacher_RN)
    # Row by row: one sum over a million squares would lose digits.
    loss = torch.linalg.vector_norm(gap_RN, dim=1).square().sum() / len(student_ND) ** 2
    if not with_gradient:
        return loss, student.x_ND, None
    # Only what is at a right angle to the row changes a row of length 1.
    along_R1 = torch.linalg.vecdot(student.row_RN, gap_RN)[:, None] * student.turns_R1
    slope_RN = gap_RN.addcmul_(student.row_RN, along_R1, value=-1)
    return loss, student.x_ND, slope_RN.mul_(2 / (student.unit * len(student_ND) ** 2 * student.divisor_R1))


class _Similarity(NamedTuple):
    """Rows of a Gram matrix at length 1, what they were divided by, whether they had a direction, and of what."""

    row_RN: Tensor
    divisor_R1: Tensor
    turns_R1: Tensor
    x_ND: Tensor
    unit: Tensor | float


def _similarity(x_ND: Tensor, rows: slice | None) -> _Similarity:
    rows = rows or slice(0, len(x_ND))
    unit: Tensor | float = 1.0
    # On other devices the host would have to wait for the answer whether features need a unit.
    can_look = x_ND.device.type == 'cpu' and not torch.compiler.is_compiling()
    gram = gram_rows(x_ND, rows) if can_look else None
    if gram is None or not _UNSCALED[0] < gram[1].amax() < _UNSCALED[1]:
        unit = x_ND.abs().amax().clamp(min=_SMALLEST)
        x_ND = x_ND / unit
        gram = gram_rows(x_ND, rows)
    product_RN, square_N = gram
    largest = square_N.amax().clamp(min=_SMALLEST**2)
    length_R1 = torch.linalg.vector_norm(product_RN, dim=1, keepdim=True)
    turns_R1 = length_R1 > _SMALLEST * largest
    divisor_R1 = torch.where(turns_R1, length_R1, largest)
    return _Similarity(product_RN.div_(divisor_R1), divisor_R1, turns_R1, x_ND, unit)
