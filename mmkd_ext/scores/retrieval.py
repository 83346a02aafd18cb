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

Shape suffixes: Q queries, G gallery items, B queries of a tile, T its items, W groups of them, E groups
to look into, M members of a group, P queries or pairs, D dims.
"""

from collections.abc import Iterator, Sequence
from numbers import Integral

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd_ext.scores.neighbours import (
    Points,
    check_sets,
    nearest_neighbours,
    neighbour_blocks,
    scaled,
    tiles,
    to_points,
    true_squares,
)

__all__ = ['check_ks', 'misses_before_hit', 'recall_at_k', 'retrieval_scores']


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
    class_Q, class_G = _number_classes(labels, gallery_labels)
    misses_Q = misses_before_hit(embeddings, class_Q, gallery, class_G, max(ks))
    return {k: int((misses_Q < k).sum()) / len(labels) for k in ks}


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
        if x is not None and (len(x) == 0 or y.shape != (len(x),)):
            raise ValueError(
                f'retrieval: expected {name} with one label each, at least one, but got embeddings of shape '
                f'{tuple(x.shape)} and labels of shape {tuple(y.shape)}; check the data set'
            )


# --------------------------------------------------------------------------------------------------
# How many items of other classes are nearer to a query than the nearest one of its own: all that Recall@K asks.
#
# No list of neighbours is kept: items are compared with the nearest relevant one, which is known beforehand, and a
# query is done with once as many are nearer as the largest K. Exact as :mod:`mmkd_ext.scores.neighbours` is, by the
# same means and with the same order of ties.
#
# to look into, M members of a group, P queries or pairs, D dims.

_TILE = (2048, 4096)
_GROUP = 16
_CLASS_TILE = (512, 4096)
# Items about as near as the nearest relevant one; with more of them a query is left to the list of neighbours.
_DOUBTS = 16
# Two bounds, and a little for the difference of the bounds of two nearly equal distances.
_MARGIN = 2.2


def misses_before_hit(
    queries: Tensor, labels: Tensor, gallery: Tensor | None, gallery_labels: Tensor | None, limit: int
) -> Tensor:
    """Count the items of other classes that come before the first one of the query's.

    Args:
        queries: Finite embeddings, shape (Q, D), any floating dtype.
        labels: Their classes, shape (Q,), integers.
        gallery: Shape (G, D); None for the other queries.
        gallery_labels: Classes of the gallery, shape (G,).
        limit: Counts from here on are not told apart.

    Returns:
        Shape (Q,), int64, at most ``limit``; ``limit`` for a query without items of its class.

    Raises:
        ValueError: If shapes do not fit, or a value is NaN or infinite.
    """
    is_own = gallery is None
    check_sets(queries, queries if is_own else gallery)
    found = labels if is_own else gallery_labels
    query_QD, gallery_GD = scaled(queries, gallery)
    points = to_points(query_QD, gallery_GD)
    count = _Count(points[0], _nearest_relevant(*points, labels, found, is_own), limit)
    for rows, columns, score_BT in tiles(*points, _TILE, is_symmetric=is_own):
        if is_own:
            _blank_own(score_BT, rows.start - columns.start)
        count.update(rows, score_BT, offset=columns.start, dim=1)
        if columns.stop > rows.stop and is_own:
            later = slice(max(columns.start, rows.stop), columns.stop)
            count.update(later, score_BT[:, later.start - columns.start :], offset=rows.start, dim=0)
    count.settle(query_QD, gallery_GD, labels, found)
    hard_P = count.is_hard_Q.nonzero()[:, 0]
    if len(hard_P):
        count.nearer_Q[hard_P] = _from_lists(query_QD, gallery_GD, labels, found, hard_P, is_own, limit)
    return count.nearer_Q


class _Count:
    """Items nearer than the nearest relevant one, for all queries.

    Attributes:
        nearer_Q: How many are known to be.
        is_hard_Q: Queries with too many doubts.
    """

    def __init__(self, queries: Points, relevant_Q: Tensor, limit: int) -> None:
        bound_Q1 = queries.bound(slice(None), -2 * relevant_Q.clamp(min=torch.finfo(relevant_Q.dtype).min / 8)[:, None])
        margin_Q = _MARGIN / 2 * bound_Q1[:, 0]
        has_none_Q = relevant_Q.isinf()
        self.limit = limit
        self.nearer_Q = torch.where(has_none_Q, limit, 0)
        self.is_hard_Q = torch.zeros_like(has_none_Q)
        # Above the first a score means nearer, below the second farther; infinite for queries that are done with.
        self.near_Q = relevant_Q + margin_Q
        self.far_Q = torch.where(has_none_Q, torch.inf, relevant_Q - margin_Q)
        self._num_doubts_Q = torch.zeros_like(self.nearer_Q)
        self._doubts: list[tuple[Tensor, Tensor]] = []

    def update(self, rows: slice, score_BT: Tensor, offset: int, dim: int) -> None:
        """Take in the scores of some queries, which are the rows (``dim=1``) or columns (``dim=0``) of a tile."""
        highest_BW, score_BT = _group(score_BT, dim)
        row_P = (highest_BW.amax(dim=1) >= self.far_Q[rows]).nonzero()[:, 0]
        query_P = row_P + rows.start
        highest_PW = highest_BW[row_P]
        # In each group whose highest score is near there is at least one item nearer.
        num_P = self.nearer_Q[query_P] + (highest_PW > self.near_Q[query_P, None]).sum(dim=1)
        self.nearer_Q[query_P] = torch.where(num_P < self.limit, self.nearer_Q[query_P], self.limit)
        is_open_PW = (highest_PW >= self.far_Q[query_P, None]) & (num_P < self.limit)[:, None]
        self._drop(query_P, is_open_PW.sum(dim=1) > self.limit + _DOUBTS)
        is_open_PW &= ~self.is_hard_Q[query_P, None]
        place_E, group_E = is_open_PW.nonzero(as_tuple=True)
        item_EM = group_E[:, None] + highest_BW.shape[1] * torch.arange(_GROUP, device=group_E.device)
        self._look(query_P[place_E], item_EM, score_BT[row_P[place_E, None], item_EM], offset)
        self.far_Q[query_P] = torch.where(self.nearer_Q[query_P] < self.limit, self.far_Q[query_P], torch.inf)

    def _look(self, query_E: Tensor, item_EM: Tensor, score_EM: Tensor, offset: int) -> None:
        """Count what is nearer, and note what may be."""
        is_near_EM = score_EM > self.near_Q[query_E, None]
        self.nearer_Q.index_add_(0, query_E, is_near_EM.sum(dim=1)).clamp_(max=self.limit)
        is_doubt_EM = (score_EM >= self.far_Q[query_E, None]) & ~is_near_EM
        self._num_doubts_Q.index_add_(0, query_E, is_doubt_EM.sum(dim=1))
        self._drop(query_E, self._num_doubts_Q[query_E] > _DOUBTS)
        is_doubt_EM &= ~self.is_hard_Q[query_E, None]
        entry_P, member_P = is_doubt_EM.nonzero(as_tuple=True)
        self._doubts.append((query_E[entry_P], item_EM[entry_P, member_P] + offset))

    def _drop(self, query_P: Tensor, is_hard_P: Tensor) -> None:
        self.is_hard_Q[query_P[is_hard_P]] = True
        self.far_Q[query_P[is_hard_P]] = torch.inf

    def settle(self, query_QD: Tensor, gallery_GD: Tensor, labels: Tensor, found: Tensor) -> None:
        """Decide the doubts by true distances and, where these are equal, by index."""
        query_P, item_P = (torch.cat(parts) for parts in zip(*self._doubts, strict=True))
        self.is_hard_Q &= self.nearer_Q < self.limit
        is_relevant_P = labels[query_P] == found[item_P]
        is_disputed_Q = torch.zeros_like(self.is_hard_Q)
        is_disputed_Q[query_P[~is_relevant_P]] = True
        is_disputed_Q &= (self.nearer_Q < self.limit) & ~self.is_hard_Q
        chosen = is_disputed_Q[query_P]
        query_P, item_P, is_relevant_P = query_P[chosen], item_P[chosen], is_relevant_P[chosen]
        if not len(query_P):
            return
        square_P = true_squares(query_QD, gallery_GD, query_P, item_P)
        best_Q = torch.full_like(self.far_Q, torch.inf, dtype=torch.float64)
        best_Q.scatter_reduce_(0, query_P[is_relevant_P], square_P[is_relevant_P], 'amin')
        is_best_P = is_relevant_P & (square_P == best_Q[query_P])
        first_Q = torch.full_like(self.nearer_Q, len(gallery_GD))
        first_Q.scatter_reduce_(0, query_P[is_best_P], item_P[is_best_P], 'amin')
        is_equal_P = square_P == best_Q[query_P]
        is_nearer_P = (square_P < best_Q[query_P]) | (is_equal_P & (item_P < first_Q[query_P]))
        self.nearer_Q.index_add_(0, query_P, (is_nearer_P & ~is_relevant_P).long()).clamp_(max=self.limit)


def _nearest_relevant(queries: Points, gallery: Points, labels: Tensor, found: Tensor, is_own: bool) -> Tensor:
    """Highest score of a relevant item for each query, -inf without one; classes lie together in sorted order."""
    by_class_Q, by_class_G = labels.argsort(stable=True), found.argsort(stable=True)
    label_Q, label_G = labels[by_class_Q], found[by_class_G].contiguous()
    best_Q = torch.full((len(labels),), -torch.inf, dtype=queries.row_ND2.dtype, device=labels.device)
    block, width = _CLASS_TILE
    for start in range(0, len(labels), block):
        query_B, label_B = (x_Q[start : start + block] for x_Q in (by_class_Q, label_Q))
        left = int(torch.searchsorted(label_G, label_B[:1]))
        right = int(torch.searchsorted(label_G, label_B[-1:], right=True))
        for first in range(left, right, width):
            item_T = by_class_G[first : min(first + width, right)]
            score_BT = queries.approximate(query_B, gallery, item_T)
            score_BT.masked_fill_(label_B[:, None] != found[item_T], -torch.inf)
            if is_own:
                score_BT.masked_fill_(query_B[:, None] == item_T, -torch.inf)
            best_Q[query_B] = torch.maximum(best_Q[query_B], score_BT.amax(dim=1))
    return best_Q


def _group(score_BT: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Highest scores of groups of columns, after the tile is turned for ``dim=0``, and the tile itself, so turned."""
    missing = -score_BT.shape[dim] % _GROUP
    if missing:
        score_BT = F.pad(score_BT, (0, missing) if dim else (0, 0, 0, missing), value=-torch.inf)
    # Reduced as it lies in memory, which is many times faster than through the transposed view.
    highest = score_BT.unflatten(dim, (_GROUP, -1)).amax(dim=dim)
    return (highest, score_BT) if dim else (highest.T, score_BT.T)


def _blank_own(score_BT: Tensor, first: int) -> None:
    """Take each query's own score away; row 0 of the tile is the item of column ``first``."""
    if -score_BT.shape[0] < first < score_BT.shape[1]:
        score_BT.diagonal(first).fill_(-torch.inf)


def _from_lists(
    query_QD: Tensor, gallery_GD: Tensor, labels: Tensor, found: Tensor, query_P: Tensor, is_own: bool, limit: int
) -> Tensor:
    """Count in the list of neighbours."""
    index_PK = nearest_neighbours(query_QD[query_P], gallery_GD, k=limit + is_own)
    is_other_PK = found[index_PK] != labels[query_P, None]
    is_self_PK = (index_PK == query_P[:, None]) & is_own
    before_PK = (is_other_PK | is_self_PK).cummin(dim=1).values & ~is_self_PK
    return before_PK.sum(dim=1).clamp(max=limit)
