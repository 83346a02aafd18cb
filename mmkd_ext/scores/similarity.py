"""Numbers that say how alike two sets of features are, and whether one has collapsed; to look at, not to train with.

Shape suffixes: N samples, D dims.
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_pair, full_precision

_SMALLEST = 1e-30


@full_precision
def linear_cka(x: Tensor, y: Tensor, *, debiased: bool = False) -> Tensor:
    r"""How alike two networks arrange the same samples: linear centred kernel alignment.

    .. math:: \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K) \, \mathrm{HSIC}(L, L)}},
        \qquad K = x x^\top, \; L = y y^\top

    1 for features that differ by rotation, shift and scale; widths may differ. Kornblith et al., "Similarity of Neural
    Network Representations Revisited", ICML 2019, arXiv 1905.00414, Eq. 3-4.

    The standard estimate is too high in small batches: unrelated features of D >> N dims come out near 1.
    ``debiased=True`` takes the unbiased HSIC of Song et al. (JMLR 2012) instead, as Nguyen et al. (arXiv 2010.15327,
    Eq. 3) do for minibatches: unrelated features come out around 0, on either side.

    Args:
        x: Shape (N, ...).
        y: Shape (N, ...).
        debiased: Use the unbiased HSIC, which needs at least four samples.

    Returns:
        Scalar without gradient, at most 1, at least 0 unless debiased; 0 where one of the two does not vary.

    Raises:
        ValueError: The numbers of samples differ, a value is NaN (:func:`check_pair`), or there are too few samples.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> linear_cka(2 * x.flip(1) + 1, x).round(decimals=6)  # blind to rotation, shift and scale
        tensor(1.)
    """
    check_pair('linear_cka', x, y)
    if debiased and len(x) < 4:
        raise ValueError(
            f'linear_cka: expected at least 4 samples for the debiased estimate but got {len(x)}; use debiased=False'
        )
    hsic = _unbiased_hsic if debiased else _hsic
    with torch.no_grad():
        x_gram_NN, y_gram_NN = _centred_gram(x.flatten(1)), _centred_gram(y.flatten(1))
        scale = hsic(x_gram_NN, x_gram_NN).clamp(min=0).sqrt() * hsic(y_gram_NN, y_gram_NN).clamp(min=0).sqrt()
        return torch.where(scale > _SMALLEST, hsic(x_gram_NN, y_gram_NN) / scale.clamp(min=_SMALLEST), 0.0)


@full_precision
def collapse(x: Tensor) -> Tensor:
    r"""How much of the features all samples have in common: 1 when they are all equal and no relation is left.

    .. math:: \frac{\lVert \bar x \rVert^2}{\frac{1}{N} \sum_i \lVert x_i \rVert^2}
        = 1 - \frac{\frac{1}{N^2} \sum_{ij} \lVert x_i - x_j \rVert^2}{\frac{2}{N} \sum_i \lVert x_i \rVert^2}

    so 1 minus the mean squared distance of pairs relative to what independent samples around the origin would have.
    Relation losses are invariant to the scale or the mean distance of the student, which makes a collapse look like
    an ordinary batch to them; this number tells it apart. What is normal depends on the layer (behind a ReLU, means
    are positive), so look at its course: it should not drift to 1.

    Args:
        x: Shape (N, ...).

    Returns:
        Scalar without gradient in [0, 1]; 0 for centred features, 1 for equal ones, also when all are 0, and 1 for a
        single sample.

    Example:
        >>> collapse(torch.ones(4, 2))  # all samples are equal
        tensor(1.)
    """
    with torch.no_grad():
        x_ND = x.flatten(1)
        scale = x_ND.abs().amax().clamp(min=_SMALLEST)  # squares of large values would overflow
        x_ND = x_ND / scale
        norm = x_ND.square().sum(1).mean()
        return torch.where(norm > _SMALLEST, x_ND.mean(0).square().sum() / norm.clamp(min=_SMALLEST), 1.0).clamp(max=1)


def _centred_gram(x_ND: Tensor) -> Tensor:
    size = x_ND.abs().amax()
    x_ND = x_ND - x_ND.mean(0)
    spread = x_ND.abs().amax()
    # Below this, what is left of equal rows is the rounding error of their mean.
    x_ND = torch.where(spread > 8 * torch.finfo(x_ND.dtype).eps * size, x_ND, 0.0)
    # The result does not depend on the scale; without the division, products of large features would overflow.
    x_ND = x_ND / spread.clamp(min=_SMALLEST)
    return x_ND @ x_ND.T / x_ND.shape[1]


def _hsic(k_NN: Tensor, l_NN: Tensor) -> Tensor:
    return (k_NN * l_NN).mean()


def _unbiased_hsic(k_NN: Tensor, l_NN: Tensor) -> Tensor:
    """Song et al. 2012, Eq. 5, up to the factor N (N - 3)."""
    n = len(k_NN)
    k_NN, l_NN = k_NN - k_NN.diag().diag(), l_NN - l_NN.diag().diag()
    k_N, l_N = k_NN.sum(1), l_NN.sum(1)
    return (k_NN * l_NN).sum() + k_N.sum() * l_N.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k_N @ l_N)
