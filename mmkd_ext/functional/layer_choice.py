"""Weights of several candidate pairs of layers, without anything to train.

Shape suffixes: P pairs of a student's and a teacher's layer.
"""

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_positive
from mmkd_ext.functional.sharing import full_precision

__all__ = ['pair_factors', 'pair_weights']

_SMALLEST = 1e-30
_LARGEST_RATIO = 1e4
_MOST_AMPLIFIED = 100.0


@full_precision
def pair_weights(first: Tensor, mean: Tensor, *, temperature: float = 0.5) -> Tensor:
    r"""Prefer pairs whose loss has come down, with a floor for the others.

    .. math:: w = \arg\min_{w \in \Delta} \; \sum_p w_p \frac{m_p}{a_p} + \tau \sum_p w_p \log w_p
        = \mathrm{softmax}\Big( -\frac{1}{\tau} \frac{m}{a} \Big)

    with :math:`m_p` the present loss of a pair and :math:`a_p` its first one. What is compared is the share of its loss
    that a pair has left, so a pair whose loss is small by nature has no advantage: all begin with equal weights. The
    entropy keeps pairs that have not risen above their first loss within a factor of :math:`e^{1/\tau}` of each other.

    An idea of this project: softmax weights in closed form where others learn them, which needs no optimizer.

    Args:
        first: :math:`a`, losses >= 0 of the first step, shape (P,).
        mean: :math:`m`, present losses >= 0, such as running means, shape (P,).
        temperature: :math:`\tau`; equal weights for a large one.

    Returns:
        Weights, shape (P,), sum 1. A pair without a first loss counts as one that has all of it left.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If ``temperature`` is not positive.
    """
    check_positive('pair_weights', temperature=temperature)
    left_P = torch.where(first > 0, mean / first.clamp(min=_SMALLEST), 1.0).clamp(max=_LARGEST_RATIO)
    return (-left_P / temperature).softmax(dim=0)


@full_precision
def pair_factors(mean: Tensor) -> Tensor:
    r"""Bring the losses of pairs to one size, their common mean.

    .. math:: f_p = \frac{\bar m}{\max(m_p, \bar m / 100)}

    so that :math:`f_p m_p = \bar m`: a sum weighted with these is of the size of one loss, as its weight expects. A
    pair that is as good as solved is amplified by 100 at most.

    Args:
        mean: :math:`m`, present losses >= 0, such as running means, shape (P,).

    Returns:
        Factors >= 0, shape (P,); 0 where all losses are 0.
    """
    return mean.mean() / mean.clamp(min=mean.mean() / _MOST_AMPLIFIED).clamp(min=_SMALLEST)
