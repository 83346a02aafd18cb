r"""How well an embedding retrieves items of the same class.

Items with the label of the query are *relevant*; there are :math:`R_q` of them in the gallery, the query itself not
counted. With :math:`r_{qi} = 1` where the i-th neighbour of query q is relevant, else 0:

.. math::
    \mathrm{Recall@K} = \frac{1}{Q} \sum_q \max_{i \leq K} r_{qi}, \qquad
    \mathrm{R\text{-}precision} = \frac{1}{Q} \sum_q \frac{1}{R_q} \sum_{i \leq R_q} r_{qi}

.. math::
    \mathrm{MAP@R} = \frac{1}{Q} \sum_q \frac{1}{R_q} \sum_{i \leq R_q} r_{qi} \frac{1}{i} \sum_{j \leq i} r_{qj}

Recall@K is that of RKD, section 4.1 (after Jegou et al., and of the official code: a query without relevant items is
a miss); R-precision and MAP@R are those of Musgrave et al., "A Metric Learning Reality Check", section 3.2.

Shape suffixes: Q queries, G gallery items, B queries of a block, K neighbours, D dims.
"""

from collections.abc import Iterator, Sequence
from numbers import Integral

import torch
from torch import Tensor

from mmkd_ext.scores.neighbours import neighbour_blocks


def recall_at_k(
    embeddings: Tensor,
    labels: Tensor,
    ks: Sequence[int] = (1, 2, 4, 8),
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
) -> dict[int, float]:
    """Share of queries with a relevant item among their K nearest neighbours.

    Args:
        embeddings: Queries, shape (Q, D), any floating dtype, finite.
        labels: Their classes, shape (Q,), integers or bool.
        ks: The values of K.
        gallery: Where to search, shape (G, D); None for the other queries.
        gallery_labels: Classes of the gallery, shape (G,).

    Returns:
        dict: K -> share in [0, 1]. A query without relevant items counts as a miss.

    Raises:
        TypeError: If ``ks`` is no sequence of integers.
        ValueError: If there are no queries, shapes do not fit, a K is below 1, or a value is NaN or infinite.

    Example:
        >>> recall_at_k(torch.tensor([[0.0], [1.0], [1.5], [5.0]]), torch.tensor([0, 0, 1, 1]), ks=(1, 2))
        {1: 0.5, 2: 0.75}
    """
    _check(embeddings, labels, ks, gallery, gallery_labels)
    totals = dict.fromkeys(ks, 0)
    for _, hit_BK in _hits(embeddings, labels, gallery, gallery_labels, max(ks)):
        for k in ks:
            totals[k] += int(hit_BK[:, :k].any(dim=1).sum())
    return {k: total / len(labels) for k, total in totals.items()}


def retrieval_scores(
    embeddings: Tensor,
    labels: Tensor,
    ks: Sequence[int] = (1, 2, 4, 8),
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
) -> dict[str, float]:
    """Recall@K, MAP@R and R-precision in one pass.

    Args:
        embeddings: See :func:`recall_at_k`.
        labels: See there.
        ks: See there.
        gallery: See there.
        gallery_labels: See there.

    Returns:
        dict: ``recall@<K>``, ``map@r`` and ``r_precision`` in [0, 1]. A query without relevant items adds 0 to each.

    Raises:
        TypeError: See :func:`recall_at_k`.
        ValueError: See there.

    Example:
        >>> x, labels = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([0, 0, 1, 1])
        >>> retrieval_scores(x, labels, ks=(1,))['recall@1']
        1.0
    """
    _check(embeddings, labels, ks, gallery, gallery_labels)
    relevant_Q = _count_relevant(labels, gallery_labels)
    totals = {**{f'recall@{k}': 0.0 for k in ks}, 'map@r': 0.0, 'r_precision': 0.0}
    most = max(*ks, int(relevant_Q.max()))
    for rows, hit_BK in _hits(embeddings, labels, gallery, gallery_labels, most):
        for k in ks:
            totals[f'recall@{k}'] += int(hit_BK[:, :k].any(dim=1).sum())
        rank_K = torch.arange(1, hit_BK.shape[1] + 1, device=hit_BK.device)
        relevant_B1 = relevant_Q[rows, None]
        hit_BK = hit_BK & (rank_K <= relevant_B1)
        share_BK = hit_BK / relevant_B1.clamp(min=1).double()
        totals['r_precision'] += float(share_BK.sum())
        totals['map@r'] += float((share_BK * (hit_BK.cumsum(dim=1).double() / rank_K)).sum())
    return {name: total / len(labels) for name, total in totals.items()}


def check_ks(caller: str, **values: Sequence[int]) -> None:
    """Refuse what is no list of numbers of neighbours.

    Args:
        caller: Function or class that speaks in the error.
        **values: The values of K by name of the setting.

    Raises:
        TypeError: If a value is no sequence of integers.
        ValueError: If one is empty, or a K is below 1.
    """
    for name, ks in values.items():
        if not isinstance(ks, Sequence) or not all(isinstance(k, Integral) and not isinstance(k, bool) for k in ks):
            raise TypeError(f'{caller}: expected {name} of integers but got {ks!r}; write for example (1, 2)')
        if not ks or min(ks) < 1:
            raise ValueError(f'{caller}: expected {name} of numbers >= 1 but got {tuple(ks)}; write for example (1, 2)')


def _hits(
    embeddings: Tensor, labels: Tensor, gallery: Tensor | None, gallery_labels: Tensor | None, k: int
) -> Iterator[tuple[slice, Tensor]]:
    """Which neighbours are relevant, block by block."""
    found = labels if gallery_labels is None else gallery_labels
    for rows, index_BK in neighbour_blocks(embeddings, gallery, k):
        yield rows, found[index_BK] == labels[rows, None]


def _count_relevant(labels: Tensor, gallery_labels: Tensor | None) -> Tensor:
    """Number of relevant items of each query, shape (Q,)."""
    class_Q, class_G = _number_classes(labels, gallery_labels)
    num_classes = 1 + int(torch.maximum(class_Q.max(), class_G.max()))
    return class_G.bincount(minlength=num_classes)[class_Q] - int(gallery_labels is None)


def _number_classes(labels: Tensor, gallery_labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Labels of any type as int64 from 0: of the queries, and of the items that are searched."""
    found = labels if gallery_labels is None else gallery_labels
    _, class_of = torch.cat([labels, found]).unique(return_inverse=True)
    return class_of.split([len(labels), len(found)])


def _check(
    embeddings: Tensor, labels: Tensor, ks: Sequence[int], gallery: Tensor | None, gallery_labels: Tensor | None
) -> None:
    check_ks('retrieval', ks=ks)
    if (gallery is None) != (gallery_labels is None):
        raise ValueError('retrieval: expected both gallery and gallery_labels, or none, but got one; add the other')
    for name, x, y in (('queries', embeddings, labels), ('gallery', gallery, gallery_labels)):
        if x is not None and y is not None and (len(x) == 0 or y.shape != (len(x),)):
            raise ValueError(
                f'retrieval: expected {name} with one label each, at least one, but got embeddings of shape '
                f'{tuple(x.shape)} and labels of shape {tuple(y.shape)}; check the data set'
            )
