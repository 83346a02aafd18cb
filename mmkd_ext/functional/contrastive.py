"""The contrastive loss: samples of one class meet, others keep a distance.

Shape suffixes: N samples (rows: anchors), D dims.
"""

from torch import Tensor

from mmkd_ext.functional.mining import check_metric_settings, embedding_distances, mine_negatives, pair_masks
from mmkd_ext.functional.sharing import full_precision

__all__ = ['contrastive_loss']


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
