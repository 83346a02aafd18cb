"""The triplet loss: a sample is nearer to those of its class than to others.

Shape suffixes: N samples (rows: anchors), D dims.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd_ext.functional.mining import check_metric_settings, embedding_distances, mine_negatives, pair_masks
from mmkd_ext.functional.sharing import full_precision

__all__ = ['triplet_loss']


@full_precision
def triplet_loss(
    embedding: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.2,
    squared: bool = False,
    mining: str = 'distance',
    seed: int = 0,
    step: Tensor | int = 0,
) -> Tensor:
    r"""By how much negatives are not farther than positives by a margin, on average over triplets.

    .. math:: \ell = \frac{1}{|\mathcal{T}|} \sum_{(a, p, n) \in \mathcal{T}}
        \big[ d(x_a, x_p) - d(x_a, x_n) + m \big]_+

    :math:`\mathcal{T}` are all triplets (``mining='all'``), or one negative for each ordered pair of one class.
    Triplets that keep the margin count in the mean, with 0. Takes :math:`O(N^2 (D + \log N))` operations and
    :math:`O(N^2)` memory, also for all :math:`O(N^3)` triplets.

    Of "Relational Knowledge Distillation", Park et al., CVPR 2019, arXiv 1904.05068: the paper writes squared
    distances, the official code takes :math:`d = \lVert x_a - x_p \rVert` as it is, which is the default here. That
    code shifts each coordinate of a difference by :math:`10^{-6}`; here equal points have distance 0 and do not push
    each other.

    Args:
        embedding: Embeddings :math:`x` in the form that is compared, shape (N, D); of length 1 in the recipe.
        labels: Integer labels, shape (N,); samples with a negative label take no part.
        margin: :math:`m`; 0.2 in the official code, in the unit of :math:`d`.
        squared: Whether :math:`d` is the squared distance.
        mining: ``'all'``, ``'random'``, ``'hard'``, ``'semi-hard'`` or ``'distance'``
            (:func:`~mmkd_ext.functional.mining.mine_negatives`).
        seed: With ``step``, what random minings draw by (:func:`~mmkd_ext.functional.hashing.uniform_noise`).
        step: Number of the batch; a tensor on the embeddings' device keeps the host from waiting.

    Returns:
        Loss, a scalar; a differentiable 0 for a batch without triplets.

    Raises:
        TypeError: If ``margin`` is not a number.
        ValueError: If a setting is out of range or unknown, shapes do not fit, or a value is NaN or infinite (looked at
            on the CPU only).
    """
    check_metric_settings('triplet_loss', margin, mining)
    if len(embedding) < 2:
        return embedding[:0].sum()
    distance_NN = embedding_distances('triplet_loss', embedding, labels)
    distance_NN = distance_NN.square() if squared else distance_NN
    if mining == 'all':
        return _all_triplets(distance_NN, labels, margin)
    mined = mine_negatives(embedding, distance_NN, labels, mining, seed, step)
    hinge_NN = (distance_NN - distance_NN.gather(1, mined.negative_NN) + margin).clamp(min=0)
    return (hinge_NN * mined.valid_NN).sum() / mined.valid_NN.sum().clamp(min=1)


def _all_triplets(distance_NN: Tensor, labels_N: Tensor, margin: float) -> Tensor:
    """Mean over all triplets, from sorted negatives: those nearer than d + m count, with their number and their sum."""
    positive_NN, negative_NN = pair_masks(labels_N)
    sorted_NN = distance_NN.masked_fill(~negative_NN, math.inf).sort(dim=1).values
    reach_NN = distance_NN + margin
    count_NN = torch.searchsorted(sorted_NN.detach(), reach_NN.detach())
    sums_NN = F.pad(sorted_NN.masked_fill(sorted_NN.isinf(), 0).cumsum(dim=1), (1, 0))
    hinge_NN = count_NN * reach_NN - sums_NN.gather(1, count_NN)
    num_triplets = (positive_NN * negative_NN.sum(dim=1, keepdim=True)).sum()
    return (hinge_NN * positive_NN).sum() / num_triplets.clamp(min=1)
