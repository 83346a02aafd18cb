"""Probabilistic knowledge transfer (PKT): similarities of samples as probabilities.

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), D dims (all
dimensions of a sample, flattened).
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_choice, check_pair, full_precision
from mmkd_ext.ops.geometry import gram_rows
from mmkd_ext.ops.gram import GramSlope, directions, loss_of_gram

FORMS = ('official', 'paper')
# What the official code adds to both probabilities inside the logarithm, which keeps it and its slope finite.
_ADDED = 1e-7
_SMALLEST = 1e-6


@full_precision
def probabilistic_transfer(
    student: Tensor, teacher: Tensor, *, form: str = 'official', rows: slice | None = None
) -> Tensor:
    r"""How differently two networks take a sample for each other sample of the batch.

    .. math:: \ell = \frac{1}{Z} \sum_{ij} p_{ij} \log \frac{p_{ij} + \epsilon}{q_{ij} + \epsilon}, \qquad
        p_{ij} = \frac{k(t_i, t_j)}{\sum_l k(t_i, t_l)}, \qquad k(x, y) = \frac{1}{2} \Big( 1 +
        \frac{x^\top y}{\lVert x \rVert \lVert y \rVert} \Big)

    and :math:`q` likewise of the student: the similarities of a sample to those of the batch are made probabilities,
    and compared by Kullback and Leibler's divergence. Blind to a rotation of the features and to the length of each.

    From "Learning Deep Representations with Probabilistic Knowledge Transfer", Passalis & Tefas, ECCV 2018, arXiv
    1803.10837. Paper and official code (passalis/probabilistic_kt) differ:

    - ``'official'``: a sample is a neighbour of itself, with similarity 1, and :math:`Z = N^2`, the mean;
    - ``'paper'``: sums leave the sample itself out, and :math:`Z = 1`, so the loss grows with the batch.

    :math:`\epsilon = 10^{-7}` is the code's, in both forms. The code also adds it to the length of each feature; here a
    feature shorter than 1e-6 has no direction instead, and is equally like to all others.

    Value and gradient are computed in closed form, with two N x N matrices, of which backward needs one.

    Args:
        student: Features :math:`s` of any shape (N, ...).
        teacher: Features :math:`t` of the same samples, any shape (N, ...); no gradient flows to them.
        form: ``'official'`` or ``'paper'``.
        rows: Rows of the similarities that this process computes while the others compute the rest
            (:func:`~mmkd_ext.ops.distributed.own_rows`); the result is then its part, and parts add up to the loss.
            None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        ValueError: If ``form`` is unknown, the numbers of samples differ, or a value is NaN
            (:func:`~mmkd_ext.ops.arguments.check_pair`).

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
        >>> lengths = torch.tensor([[1.0], [2.0], [3.0]])
        >>> probabilistic_transfer(lengths * x, x) < 1e-6  # blind to the length of each feature
        tensor(True)
    """
    caller = 'probabilistic_transfer'
    check_choice(caller, FORMS, form=form)
    check_pair(caller, student, teacher)
    num_samples = len(student)
    if num_samples < 2:
        return student[:0].sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student = student.to(dtype)
    own = rows or slice(0, num_samples)
    with torch.no_grad():
        turned = directions(student.flatten(1))
        p_RN, _ = _probabilities(directions(teacher.flatten(1).to(dtype)).unit_XD, own, form)
        q_RN, total_R1 = _probabilities(turned.unit_XD, own, form)
        share = 1 / num_samples**2 if form == 'official' else 1.0
        raised_RN = q_RN + _ADDED
        # Both probabilities of a row sum to one: their difference adds nothing but keeps each term positive.
        terms_RN = (p_RN + _ADDED).div_(raised_RN).log_().mul_(p_RN).add_(q_RN).sub_(p_RN)
        # Row by row: one sum over a million terms would lose digits.
        loss = terms_RN.sum(dim=1).sum().clamp(min=0) * share
        if not student.requires_grad:
            return loss
        slope_RN = p_RN.div_(raised_RN).neg_()
        along_R1 = torch.linalg.vecdot(slope_RN, q_RN)[:, None]
        slope_RN.sub_(along_R1).mul_(share / 2 / total_R1)
        if form == 'paper':
            slope_RN.diagonal(own.start).zero_()
    return loss_of_gram(caller, student, loss, GramSlope(turned.unit_XD, slope_RN, rows=rows, directions=turned))


def _probabilities(x_ND: Tensor, rows: slice, form: str) -> tuple[Tensor, Tensor]:
    """Some rows of the probabilities, and what they were divided by."""
    similar_RN = gram_rows(x_ND, rows)[0].add_(1).div_(2).clamp_(min=0)
    if form == 'paper':
        similar_RN.diagonal(rows.start).zero_()
    total_R1 = similar_RN.sum(dim=1, keepdim=True).clamp(min=_SMALLEST)
    return similar_RN.div_(total_R1), total_R1
