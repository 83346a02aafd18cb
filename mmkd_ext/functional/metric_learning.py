"""Losses of metric learning, triplet and contrastive, and which negative belongs to an anchor and a positive: mining.

A batch of N samples has N x N cells (anchor, positive). Every mining gives each cell a negative, also those that are no
pair of one class, and says which cells count: without lists of pairs, whose length only the host could know, nothing
waits for a GPU.

Written by hand because pytorch-metric-learning lists all triplets, which takes O(N^3) memory and two to six times as
long, cannot repeat its draws at a step, and gives a loss for an embedding with NaN (``docs/libraries.md``).

Shape suffixes: N samples (rows: anchors), D dims.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd_ext.ops.arguments import check_choice, check_not_negative, full_precision, unit_rows
from mmkd_ext.ops.geometry import squared_distances
from mmkd_ext.ops.random import uniform_noise

# Of squared distances: rounding in float64 stays far below.
_EQUAL = 1e-12
_MININGS = ('all', 'random', 'hard', 'semi-hard', 'distance')


class Mined(NamedTuple):
    """One negative for each cell (anchor, positive).

    Attributes:
        negative_NN: Index of the negative, int64.
        valid_NN: Whether the cell is a triplet, bool: anchor and positive are of one class, the negative of another.
    """

    negative_NN: Tensor
    valid_NN: Tensor


def embedding_distances(caller: str, embedding: Tensor, labels: Tensor) -> Tensor:
    """Distances within a batch, from a Gram matrix in float64, so that near-duplicates keep their digits.

    Pairs nearer than a millionth of the batch's diameter count as equal: distance and gradient are 0. Values are looked
    at on the CPU only, as in :func:`~mmkd_ext.ops.arguments.check_pair`; elsewhere NaN passes through.

    Args:
        caller: Function that speaks in the error.
        embedding: Shape (N, D).
        labels: Shape (N,).

    Returns:
        Shape (N, N), with 0 on the diagonal.

    Raises:
        ValueError: If the shapes are others, or a value is NaN or infinite.
    """
    if embedding.ndim != 2 or labels.shape != embedding.shape[:1]:
        raise ValueError(
            f'{caller}: expected an embedding of shape (N, D) and labels of shape (N,) but got '
            f'{tuple(embedding.shape)}, '
            f'{tuple(labels.shape)}; give one label for each row'
        )
    _check_finite(caller, embedding)
    square_NN = squared_distances(embedding.double())
    # Of NaN no comparison is true: it counts as apart, and passes through.
    equal_NN = square_NN <= _EQUAL * square_NN.detach().amax()
    # The slope of a root at 0 is infinite, and 0 times infinity no number.
    distance_NN = torch.where(equal_NN, 0.0, torch.where(equal_NN, 1.0, square_NN).sqrt())
    return distance_NN.to(embedding.dtype)


def check_metric_settings(caller: str, margin: float, mining: str) -> None:
    """Refuse settings that the losses of metric learning cannot use; modules call it when they are built.

    Args:
        caller: Function or class that speaks in the error.
        margin: Not negative.
        mining: One of the five.

    Raises:
        TypeError: If ``margin`` is not a number.
        ValueError: If ``margin`` is negative or not finite, or ``mining`` is unknown.
    """
    check_not_negative(caller, margin=margin)
    check_choice(caller, _MININGS, mining=mining)


def pair_masks(labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Tell pairs of one class from pairs of two; samples with a negative label are in neither.

    Args:
        labels_N: Integers, shape (N,).

    Returns:
        Positives and negatives, bool, both (N, N) and symmetric; a sample is no positive of itself.
    """
    same_NN = labels_N[:, None] == labels_N
    known_NN = (labels_N[:, None] >= 0) & (labels_N >= 0)
    positive_NN = (same_NN & known_NN).fill_diagonal_(False)
    return positive_NN, ~same_NN & known_NN


def mine_negatives(
    embedding_ND: Tensor, distance_NN: Tensor, labels_N: Tensor, mining: str, seed: int, step: Tensor | int
) -> Mined:
    """Choose a negative for each anchor and positive.

    ===============  ================================================================================================
    ``'random'``     any negative of the anchor, with equal probability
    ``'hard'``       its nearest negative
    ``'semi-hard'``  its nearest negative among those that are farther than the positive; where none is, its farthest
    ``'distance'``   drawn by :func:`distance_weights`
    ===============  ================================================================================================

    Sources: semi-hard from "FaceNet", Schroff et al., CVPR 2015, arXiv 1503.03832; by distance from "Sampling Matters
    in Deep Embedding Learning", Wu et al., ICCV 2017, arXiv 1706.07567; all of them as in the official code of RKD
    (lenscloth/RKD).

    Args:
        embedding_ND: Embeddings, float32 or float64; no gradient flows to them, nor to the distances.
        distance_NN: Their distances, or squared distances.
        labels_N: Integers, shape (N,); samples with a negative label take no part.
        mining: A word of the table.
        seed: With ``step``, what ``'random'`` and ``'distance'`` draw by
            (:func:`~mmkd_ext.ops.random.uniform_noise`).
        step: Number of the batch.

    Returns:
        Indices and mask; the mask has a cell for each positive pair whose anchor has a negative.

    Raises:
        ValueError: For another word.
    """
    check_choice('mine_negatives', _MININGS[1:], mining=mining)
    embedding_ND, distance_NN = embedding_ND.detach(), distance_NN.detach()
    positive_NN, negative_NN = pair_masks(labels_N)
    if mining in ('random', 'distance'):
        weight_NN = random_weights(labels_N) if mining == 'random' else distance_weights(embedding_ND, labels_N)
        step = torch.as_tensor(step, dtype=torch.int64, device=labels_N.device)
        index_NN = _draw(weight_NN, uniform_noise(tuple(weight_NN.shape), seed, step))
    else:
        index_NN = _nearest(distance_NN, negative_NN, beyond_positive=mining == 'semi-hard')
    return Mined(index_NN, positive_NN & negative_NN.gather(1, index_NN))


def random_weights(labels_N: Tensor) -> Tensor:
    """Equal probabilities of an anchor's negatives.

    Args:
        labels_N: Integers, shape (N,).

    Returns:
        Shape (N, N), float32; rows sum to 1, or are 0 for an anchor without negatives.
    """
    return _normalised(pair_masks(labels_N)[1].float())


def distance_weights(embedding_ND: Tensor, labels_N: Tensor, *, near: float = 0.5, far: float = 1.4) -> Tensor:
    r"""Probabilities of an anchor's negatives that make their distances uniform.

    .. math:: w_{ij} \propto \frac{1}{q(d_{ij})}, \qquad
        q(d) \propto d^{D - 2} \Big(1 - \frac{d^2}{4}\Big)^{(D - 3) / 2}

    :math:`q` is how distances between random points of the unit sphere are distributed, where embeddings are put
    first. Distances below ``near`` count as ``near``; negatives at ``far`` or farther, which no margin reaches, get
    nothing, so that :math:`d = 2`, where :math:`q` is 0, does not come up. An anchor without nearer negatives takes any
    with equal probability.

    Wu et al., ICCV 2017, arXiv 1706.07567, Section 4.1, with the bounds of the official code of RKD.

    Args:
        embedding_ND: Any scale.
        labels_N: Integers, shape (N,); samples with a negative label take no part.
        near: :math:`d` is at least this.
        far: A negative is nearer than this; below 2.

    Returns:
        Shape (N, N), dtype of the embeddings; rows sum to 1, or are 0 for an anchor without negatives.
    """
    negative_NN = pair_masks(labels_N)[1]
    distance_NN = squared_distances(unit_rows(embedding_ND)).sqrt()
    eligible_NN = negative_NN & (distance_NN < far)
    distance_NN = distance_NN.clamp(near, far)
    num_dims = embedding_ND.shape[1]
    log_weight_NN = (2 - num_dims) * distance_NN.log() - (num_dims - 3) / 2 * (1 - distance_NN.square() / 4).log()
    # Powers of the dimension overflow: only ratios to the row's largest weight are formed.
    log_weight_NN = log_weight_NN.masked_fill(~eligible_NN, -math.inf)
    largest_N1 = log_weight_NN.amax(dim=1, keepdim=True)
    has_any_N1 = largest_N1 > -math.inf
    weight_NN = (log_weight_NN - largest_N1.masked_fill(~has_any_N1, 0)).exp()
    return _normalised(torch.where(has_any_N1, weight_NN, negative_NN.to(weight_NN)))


def _check_finite(caller: str, embedding_ND: Tensor) -> None:
    if torch.compiler.is_compiling() or embedding_ND.device.type != 'cpu':
        return
    # The sum, many times faster, shows whether it is worth looking at each value.
    if not embedding_ND.sum().isfinite() and not embedding_ND.isfinite().all():
        raise ValueError(
            f'{caller}: expected finite numbers in embedding but got NaN or infinity in '
            f'{int((~embedding_ND.isfinite()).sum())} of {embedding_ND.numel()} places; look for the layer that makes '
            'them, or lower the learning rate'
        )


def _normalised(weight_NN: Tensor) -> Tensor:
    total_N1 = weight_NN.sum(dim=1, keepdim=True)
    return weight_NN / total_N1.masked_fill(total_N1 == 0, 1)


def _draw(weight_NN: Tensor, noise_NN: Tensor) -> Tensor:
    """Draw one column for each cell with the probabilities of its row, by inversion of their sums."""
    sum_NN = weight_NN.cumsum(dim=1)
    threshold_NN = noise_NN.to(sum_NN) * sum_NN[:, -1:]
    # Beyond the end lies only what a row without weights draws.
    return torch.searchsorted(sum_NN, threshold_NN, right=True).clamp(max=len(weight_NN) - 1)


def _nearest(distance_NN: Tensor, negative_NN: Tensor, beyond_positive: bool) -> Tensor:
    """Nearest negative, of all or of those farther than the positive of the cell (the farthest if none is)."""
    sorted_NN, order_NN = distance_NN.masked_fill(~negative_NN, math.inf).sort(dim=1)
    if not beyond_positive:
        return order_NN[:, :1].expand_as(order_NN)
    rank_NN = torch.searchsorted(sorted_NN, distance_NN, right=True)
    last_N1 = (negative_NN.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    return order_NN.gather(1, torch.minimum(rank_NN, last_N1))


# --------------------------------------------------------------------------------------------------
# The triplet loss: a sample is nearer to those of its class than to others.


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
            (:func:`~mmkd_ext.functional.metric_learning.mine_negatives`).
        seed: With ``step``, what random minings draw by (:func:`~mmkd_ext.ops.random.uniform_noise`).
        step: Number of the batch; a tensor on the embeddings' device keeps the host from waiting.

    Returns:
        Loss, a scalar; a differentiable 0 for a batch without triplets.

    Raises:
        TypeError: If ``margin`` is not a number.
        ValueError: If a setting is out of range or unknown, shapes do not fit, or a value is NaN or infinite (looked at
            on the CPU only).

    Example:
        >>> x, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1])
        >>> triplet_loss(x, labels, mining='all')  # the other class is further away than the margin
        tensor(0.)
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


# --------------------------------------------------------------------------------------------------
# The contrastive loss: samples of one class meet, others keep a distance.


@full_precision
def contrastive_loss(
    embedding: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.2,
    mining: str = 'distance',
    seed: int = 0,
    step: Tensor | int = 0,
) -> Tensor:
    r"""Squared distances of positives, and by how much negatives are nearer than a margin, on average over pairs.

    .. math:: \ell = \frac{1}{2 |\mathcal{T}|} \sum_{(a, p, n) \in \mathcal{T}} \Big(
        \lVert x_a - x_p \rVert^2 + \big[ m - \lVert x_a - x_n \rVert \big]_+^2 \Big)

    :math:`\mathcal{T}` are the triplets of :func:`~mmkd_ext.functional.triplet_loss`: as many pairs of one class as of
    two, and with ``mining='all'`` every pair as often as it is part of a triplet.

    From "Dimensionality Reduction by Learning an Invariant Mapping", Hadsell et al., CVPR 2006, in the form of the
    official code of RKD (lenscloth/RKD).

    Args:
        embedding: Embeddings :math:`x`, shape (N, D).
        labels: Integer labels, shape (N,); samples with a negative label take no part.
        margin: :math:`m`.
        mining: See :func:`~mmkd_ext.functional.triplet_loss`, as for those that follow.
        seed: See there.
        step: See there.

    Returns:
        Loss, a scalar; a differentiable 0 for a batch without triplets.

    Raises:
        TypeError: If ``margin`` is not a number.
        ValueError: If a setting is out of range or unknown, shapes do not fit, or a value is NaN or infinite (looked at
            on the CPU only).

    Example:
        >>> x, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1])
        >>> contrastive_loss(x, labels, mining='hard')  # the other class is further away than the margin
        tensor(0.)
    """
    check_metric_settings('contrastive_loss', margin, mining)
    if len(embedding) < 2:
        return embedding[:0].sum()
    distance_NN = embedding_distances('contrastive_loss', embedding, labels)
    near_NN, far_NN = distance_NN.square(), (margin - distance_NN).clamp(min=0).square()
    if mining == 'all':
        positive_NN, negative_NN = pair_masks(labels)
        # The triplets that a pair is part of.
        near_weight_NN = positive_NN * negative_NN.sum(dim=1, keepdim=True)
        far_weight_NN = negative_NN * positive_NN.sum(dim=1, keepdim=True)
        total = (near_NN * near_weight_NN).sum() + (far_NN * far_weight_NN).sum()
        return total / (2 * near_weight_NN.sum().clamp(min=1))
    mined = mine_negatives(embedding, distance_NN, labels, mining, seed, step)
    terms_NN = near_NN + far_NN.gather(1, mined.negative_NN)
    return (terms_NN * mined.valid_NN).sum() / (2 * mined.valid_NN.sum().clamp(min=1))
