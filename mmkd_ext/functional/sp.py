"""Similarity-preserving knowledge distillation (SP).

Shape suffixes: N samples, R rows of the relation, D dims (all dimensions of a sample, flattened).
"""

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_pair, full_precision
from mmkd_ext.functional.closed_form import loss_of_gram
from mmkd_ext.functional.rows import gram_rows

__all__ = ['similarity_preserving']

_SMALLEST = 1e-6
# Largest magnitudes of features between which squares of their products stay inside float32.
_UNSCALED = (1e-4, 1e4)


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

    Features are first divided by the batch's largest magnitude, which the loss cannot see; maps of any size then stay
    inside float32. A sample whose Gram row is shorter than 1e-6 after that has no similarities: its row stays near zero
    and its gradient is bounded, where published code multiplies it by :math:`10^{12}`.

    Value and gradient are computed in closed form, with two N x N matrices, of which backward needs one.

    Args:
        student: Features :math:`s` of any shape (N, ...).
        teacher: Features :math:`t` of the same samples, any shape (N, ...); no gradient flows to them.
        rows: Rows of the similarities that this process computes while the others compute the rest
            (:func:`~mmkd_ext.functional.gather.own_rows`); the result is then its part, and parts add up to the loss.
            None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        ValueError: If the numbers of samples differ, or a value is NaN (:func:`check_pair`).
    """
    who = 'similarity_preserving'
    check_pair(who, student, teacher)
    if len(student) < 2:
        return student[:0].sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    with_gradient = torch.is_grad_enabled() and student.requires_grad
    with torch.no_grad():
        student_ND, teacher_ND = (x.flatten(1).to(dtype) for x in (student, teacher))
        loss, x_ND, slope_RN = _closed_form(student_ND, teacher_ND, rows, with_gradient)
    return loss_of_gram(who, student, x_ND, loss, slope_RN, rows=rows) if with_gradient else loss


def _closed_form(
    student_ND: Tensor, teacher_ND: Tensor, rows: slice | None, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss, the student's features as they were multiplied, and its slope in their products, if wanted."""
    student_ND, unit, square = _scaled(student_ND)
    student_RN, divisor_R1, turns_R1 = _similarity(student_ND, square, rows)
    teacher_ND, _, square = _scaled(teacher_ND)
    gap_RN = _similarity(teacher_ND, square, rows)[0].sub_(student_RN).neg_()
    # Row by row: one sum over a million squares would lose digits.
    loss = torch.linalg.vector_norm(gap_RN, dim=1).square().sum() / len(student_ND) ** 2
    if not with_gradient:
        return loss, student_ND, None
    # Only what is at a right angle to the row changes a row of length 1.
    along_R1 = torch.linalg.vecdot(student_RN, gap_RN)[:, None] * turns_R1
    slope_RN = gap_RN.addcmul_(student_RN, along_R1, value=-1)
    return loss, student_ND, slope_RN.mul_(2 / (unit * len(student_ND) ** 2 * divisor_R1))


def _scaled(x_ND: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """Features in a unit in which their products stay inside float32, the unit, and the largest square in it."""
    lowest, highest = x_ND.aminmax()
    peak = torch.maximum(-lowest, highest).clamp(min=_SMALLEST)
    if x_ND.device.type == 'cpu' and not torch.compiler.is_compiling() and _UNSCALED[0] < peak < _UNSCALED[1]:
        return x_ND, 1.0, peak**2
    return x_ND / peak, peak, 1.0


def _similarity(x_ND: Tensor, square: Tensor | float, rows: slice | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the Gram matrix at length 1, what they were divided by, and whether they had a direction."""
    product_RN, _ = gram_rows(x_ND, rows or slice(0, len(x_ND)))
    length_R1 = torch.linalg.vector_norm(product_RN, dim=1, keepdim=True)
    turns_R1 = length_R1 > _SMALLEST * square
    divisor_R1 = torch.where(turns_R1, length_R1, square)
    return product_RN.div_(divisor_R1), divisor_R1, turns_R1
