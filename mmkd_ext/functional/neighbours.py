"""Nearest neighbours, exact on ties, in memory that does not grow with the number of pairs.

Distances are those that float64 gives: squared differences, summed. Matrix products in the dtype of the embeddings
find candidates (:mod:`mmkd_ext.functional.screening`); where they leave a doubt about the order, these distances are
computed, and decide. Equal distances are ordered by index, lowest first.

Shape suffixes: Q queries, G gallery items, B queries of a block, M candidates, K neighbours, P pairs, D dims.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd_ext.functional.checks import check_dims
from mmkd_ext.functional.screening import Candidates, Points, screen, to_points

__all__ = ['check_sets', 'nearest_neighbours', 'neighbour_blocks', 'scaled', 'true_squares']

# Candidates beyond the neighbours asked for: behind them, the rest of the gallery is out of reach but for ties.
_SPARE = 4
# Values at once: few enough for the processor's cache.
_VALUES = 2**17
_SEARCHED = 64
# Largest magnitudes of at least two to this power are left as they are: unit vectors need no copy.
_SMALL = -10


def nearest_neighbours(queries: Tensor, gallery: Tensor | None = None, k: int = 1) -> Tensor:
    """Find the nearest gallery items of each query by Euclidean distance.

    Args:
        queries: Finite embeddings, shape (Q, D), any floating dtype.
        gallery: Finite embeddings, shape (G, D); None for the queries themselves, of which each is then left out of
            its own neighbours, by its index and not by its distance.
        k: K, at least 1. Fewer neighbours are returned where the gallery has fewer items.

    Returns:
        Indices into the gallery, nearest first and equally near ones by index, shape (Q, K), int64.

    Raises:
        ValueError: If shapes do not fit, ``k`` is below 1, or a value is NaN or infinite.
    """
    blocks = [index_BK for _, index_BK in neighbour_blocks(queries, gallery, k)]
    return torch.cat(blocks) if blocks else torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)


def neighbour_blocks(queries: Tensor, gallery: Tensor | None = None, k: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Do what :func:`nearest_neighbours` does block by block, for results too large to hold.

    Args:
        queries: See there.
        gallery: See there.
        k: See there.

    Yields:
        Consecutive queries, and their neighbours of shape (B, K), int64.

    Raises:
        ValueError: See there.
    """
    is_own = gallery is None
    gallery = queries if is_own else gallery
    check_sets(queries, gallery)
    if k < 1:
        raise ValueError(f'nearest_neighbours: expected k >= 1 but got {k}; ask for one neighbour or more')
    # Up to the end a query is its own neighbour, too.
    number = min(k + is_own, len(gallery))
    if not len(queries) or number <= is_own:
        return
    query_QD, gallery_GD = scaled(queries, None if is_own else gallery)
    query_points, gallery_points = to_points(query_QD, gallery_GD)
    order = _Order(query_QD, gallery_GD, query_points, gallery_points)
    for candidates in screen(query_points, gallery_points, min(number + _SPARE, len(gallery_GD))):
        index_BK = order.nearest(candidates, number)
        yield candidates.rows, _without_self(index_BK, candidates.rows) if is_own else index_BK


class _Order:
    """Puts candidates in the order of their true distances."""

    def __init__(self, query_QD: Tensor, gallery_GD: Tensor, queries: Points, gallery: Points) -> None:
        self.query_QD, self.gallery_GD = query_QD, gallery_GD
        self.queries, self.gallery = queries, gallery

    def nearest(self, candidates: Candidates, number: int) -> Tensor:
        """Return the first ``number`` of the candidates, and look further where there may be nearer items."""
        rows, square_BM, index_BM = candidates
        bound_BM = self.queries.bound(rows, square_BM)
        is_close = square_BM[:, 1:] - square_BM[:, :-1] <= bound_BM[:, 1:] + bound_BM[:, :-1]
        is_doubtful_BM = F.pad(is_close, (0, 1)) | F.pad(is_close, (1, 0))
        true_BM = square_BM.double()
        query_P, place_P = is_doubtful_BM.nonzero(as_tuple=True)
        true_BM[query_P, place_P] = true_squares(
            self.query_QD, self.gallery_GD, query_P + rows.start, index_BM[query_P, place_P]
        )
        nearest_BK = _sorted(true_BM, index_BM)[:, :number]
        if index_BM.shape[1] < len(self.gallery_GD):
            reach_B = square_BM[:, number - 1] + bound_BM[:, number - 1]
            is_open_B = square_BM[:, -1] - bound_BM[:, -1] <= reach_B
            if is_open_B.any():
                query_P = is_open_B.nonzero()[:, 0]
                nearest_BK[query_P] = self._search(query_P + rows.start, reach_B[query_P], number)
        return nearest_BK

    def _search(self, query_P: Tensor, reach_P: Tensor, number: int) -> Tensor:
        """Look at every gallery item within reach, once for queries that coincide."""
        distinct, of_P = self.query_QD[query_P].unique(dim=0, return_inverse=True)
        one_U = torch.empty(len(distinct), dtype=torch.long, device=of_P.device)
        one_U[of_P] = torch.arange(len(of_P), device=of_P.device)
        found_UK = [
            index_K
            for start in range(0, len(one_U), _SEARCHED)
            for index_K in self._search_some(*(x[one_U[start : start + _SEARCHED]] for x in (query_P, reach_P)), number)
        ]
        return torch.stack(found_UK)[of_P]

    def _search_some(self, query_P: Tensor, reach_P: Tensor, number: int) -> Iterator[Tensor]:
        square_PG = -2 * self.queries.approximate(query_P, self.gallery, slice(None))
        in_reach_PG = square_PG - self.queries.bound(query_P, square_PG) <= reach_P[:, None]
        for query, in_reach_G in zip(query_P, in_reach_PG, strict=True):
            item_P = in_reach_G.nonzero()[:, 0]
            nearest = (
                true_squares(self.query_QD, self.gallery_GD, query.expand_as(item_P), item_P)
                .sort(stable=True)
                .indices[:number]
            )
            yield item_P[nearest]


def true_squares(query_QD: Tensor, gallery_GD: Tensor, query_P: Tensor, item_P: Tensor) -> Tensor:
    """Squared distances of pairs as float64 gives them.

    Args:
        query_QD: Queries.
        gallery_GD: Gallery.
        query_P: Index of each pair's query.
        item_P: Index of its gallery item.

    Returns:
        Shape (P,), float64.
    """
    step = max(1, _VALUES // query_QD.shape[1])
    parts = [
        query_QD[query].double().sub_(gallery_GD[item]).square_().sum(dim=1)
        for query, item in zip(query_P.split(step), item_P.split(step), strict=True)
    ]
    return torch.cat(parts)


def scaled(queries: Tensor, gallery: Tensor | None) -> tuple[Tensor, Tensor]:
    """Divide by a power of two, which keeps the order of distances and takes their squares into the dtype's range.

    Args:
        queries: Shape (Q, D), any floating dtype.
        gallery: Shape (G, D); None for the queries.

    Returns:
        Both in one dtype, float32 or float64, magnitudes at most 1; one tensor twice without ``gallery``.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    if gallery is not None:
        dtype = torch.promote_types(gallery.dtype, dtype)
    both = [x_ND.detach().to(dtype) for x_ND in (queries, gallery) if x_ND is not None]
    exponent = torch.frexp(torch.stack([x for x_ND in both for x in x_ND.aminmax()]).abs().amax()).exponent
    if not _SMALL <= exponent <= 0:
        both = [torch.ldexp(x_ND, -exponent) for x_ND in both]
    return both[0], both[-1]


def _sorted(square_BM: Tensor, index_BM: Tensor) -> Tensor:
    """Indices by distance, equal distances by index."""
    index_BM, place_BM = index_BM.sort(dim=1)
    return index_BM.gather(1, square_BM.gather(1, place_BM).sort(dim=1, stable=True).indices)


def _without_self(index_BK: Tensor, rows: slice) -> Tensor:
    """Leave out each query itself, or where it is not among its neighbours for ties, the last one."""
    own_B1 = torch.arange(rows.start, rows.stop, device=index_BK.device)[:, None]
    is_kept_BK = index_BK != own_B1
    is_kept_BK[:, -1] &= ~is_kept_BK.all(dim=1)
    return index_BK[is_kept_BK].view(len(index_BK), -1)


def check_sets(queries: Tensor, gallery: Tensor) -> None:
    """Refuse embeddings between which there are no distances.

    Args:
        queries: Expected of shape (Q, D), finite.
        gallery: Expected of shape (G, D), finite.

    Raises:
        ValueError: If shapes do not fit, or a value is NaN or infinite.
    """
    check_dims('nearest_neighbours', 'N D', queries=queries, gallery=gallery)
    if queries.shape[1] != gallery.shape[1] or not queries.shape[1]:
        raise ValueError(
            f'nearest_neighbours: expected queries and gallery of the same width, at least 1, but got '
            f'{queries.shape[1]} and {gallery.shape[1]}; embed both with the same model'
        )
    for name, tensor in (('queries', queries), ('gallery', gallery))[: 1 if queries is gallery else 2]:
        # NaN passes through both, several times faster than isfinite looks at every value.
        if tensor.numel() and not torch.stack(tensor.detach().aminmax()).isfinite().all():
            raise ValueError(
                f'nearest_neighbours: expected finite {name} but got NaN or infinite values; check the model'
            )
