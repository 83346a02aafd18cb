"""Similarity-preserving knowledge distillation (SP).

Shape suffixes: N samples, R rows of the relation, D dims (all dimensions of a sample, flattened).
"""

from torch import Tensor

from mmkd_ext.functional.checks import check_pair, full_precision
from mmkd_ext.functional.rows import unit_rows

__all__ = ['similarity_preserving']

_SMALLEST = 1e-6


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
    check_pair('similarity_preserving', student, teacher)
    if len(student) < 2:
        return student[:0].sum()
    gap_RN = _similarity(student.flatten(1), rows) - _similarity(teacher.detach().flatten(1), rows)
    return gap_RN.square().sum() / len(student) ** 2


def _similarity(x_ND: Tensor, rows: slice | None) -> Tensor:
    x_ND = x_ND / x_ND.detach().abs().amax().clamp(min=_SMALLEST)
    return unit_rows(x_ND[rows or slice(None)] @ x_ND.T)
