r"""Candidates for the nearest neighbours: matrix products over tiles, with a bound on how far off they may be.

With the columns :math:`(x, 1, -|x|^2/2)` against :math:`(y, -|y|^2/2, 1)`, one matrix product gives
:math:`-|x-y|^2/2`. Its rounding errors, those of the squared lengths and of the centring leave, in D dims and for a
machine epsilon :math:`\epsilon`,

.. math:: |a - |x-y|^2| \leq (1.5 D + 4)\,\epsilon\,(|x|^2 + |y|^2) \leq (1.5 D + 4)\,\epsilon\,(3|x|^2 + 2|x-y|^2)

whatever the order of the summation; the second step is the triangle inequality.

Shape suffixes: Q queries, G gallery items, B queries of a block, T gallery items of a tile, M candidates, D dims.

Shape suffixes: Q queries, G gallery items, B queries of a block, M candidates, K neighbours, P pairs, D dims.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd_ext.ops.arguments import check_dims, full_precision, products_are_exact

__all__ = [
    'Candidates',
    'Points',
    'check_sets',
    'nearest_neighbours',
    'neighbour_blocks',
    'scaled',
    'screen',
    'tiles',
    'to_points',
    'true_squares',
]

_TILE = 4096
_BLOCK = 4096
# Values of a block's candidates, so that many candidates mean smaller blocks.
_BLOCK_VALUES = 2**21
# Values of all queries' candidates, for which memory is spent to compute every product only once.
_LIST_VALUES = 2**23
_GROUP = 16


@dataclass(frozen=True)
class Points:
    """Vectors prepared for the matrix product.

    Attributes:
        row_ND2: Centred vectors, 1, and minus half their squared length.
    """

    row_ND2: Tensor

    def approximate(self, rows: slice | Tensor, other: 'Points', columns: slice, out: Tensor | None = None) -> Tensor:
        """Approximate minus half the squared distances of some points to some others.

        Args:
            rows: These points.
            other: Prepared together with them.
            columns: The others.
            out: Memory for the result, of its shape.

        Returns:
            Shape (rows, columns).
        """
        turned_TD2 = other.row_ND2[columns].clone()
        turned_TD2[:, -2:] = turned_TD2[:, -2:].flip(1)
        return _product(self.row_ND2[rows], turned_TD2.T, out=out)

    def bound(self, rows: slice | Tensor, square_BM: Tensor) -> Tensor:
        """How far off the true squared distance may be from an approximate one.

        Args:
            rows: The points that distances were measured from.
            square_BM: Approximate squared distances.

        Returns:
            The shape of ``square_BM``.
        """
        num_dims, limits = self.row_ND2.shape[1] - 2, torch.finfo(self.row_ND2.dtype)
        length_B1 = -2 * self.row_ND2[rows, -1:]
        # A little more than the formula, for the errors of the terms that the bound itself is made of.
        share = (1.52 * num_dims + 8) * limits.eps
        return share * (3 * length_B1 + 2 * square_BM.clamp(min=0)) + 4 * num_dims * limits.tiny


Tile = tuple[slice, slice, Tensor]


class Candidates(NamedTuple):
    """What is nearest to a block of queries, as far as the products tell.

    Attributes:
        rows: The queries.
        square_BM: Approximate squared distances, ascending.
        index_BM: The gallery items.
    """

    rows: slice
    square_BM: Tensor
    index_BM: Tensor


def to_points(query_QD: Tensor, gallery_GD: Tensor) -> tuple[Points, Points]:
    """Prepare two sets, in one place if they are the same tensor.

    Args:
        query_QD: Vectors of magnitudes at most 1, float32 or float64.
        gallery_GD: Vectors likewise, of the same dtype.

    Returns:
        Points of the queries, points of the gallery.
    """
    # The bound on errors does not hold for products that a GPU or CPU may take in shorter numbers.
    dtype = query_QD.dtype if products_are_exact() else torch.float64
    centre_D = gallery_GD.mean(dim=0, dtype=dtype)
    gallery = _augment(gallery_GD, centre_D)
    return (gallery if query_QD is gallery_GD else _augment(query_QD, centre_D)), gallery


def tiles(queries: Points, gallery: Points, shape: tuple[int, int], is_symmetric: bool) -> Iterator[Tile]:
    """Compute the approximate distances of all queries to all items, in memory for one tile.

    Args:
        queries: The queries.
        gallery: The gallery.
        shape: Queries and items of a tile.
        is_symmetric: Leave out tiles that are the transpose of an earlier one, or of a part of it.

    Yields:
        Queries, items, and minus half their squared distances, which the next tile overwrites.
    """
    block, width = shape
    num_queries, num_items = len(queries.row_ND2), len(gallery.row_ND2)
    memory = gallery.row_ND2.new_empty(min(block, num_queries) * min(width, num_items))
    for start in range(0, num_queries, block):
        rows = slice(start, min(start + block, num_queries))
        for left in range(start if is_symmetric else 0, num_items, width):
            columns = slice(left, min(left + width, num_items))
            size = (rows.stop - start, columns.stop - left)
            out = memory[: size[0] * size[1]].view(size)
            yield rows, columns, queries.approximate(rows, gallery, columns, out=out)


def screen(queries: Points, gallery: Points, num_candidates: int) -> Iterator[Candidates]:
    """Find the candidates of all queries, block by block.

    Of a gallery that is the queries, every product is computed once, for the tile and for its transpose.

    Args:
        queries: The queries.
        gallery: The gallery; the same object where it is the same set.
        num_candidates: M, at most the size of the gallery.

    Yields:
        Candidates of consecutive blocks.
    """
    num_queries, num_items = len(queries.row_ND2), len(gallery.row_ND2)
    is_symmetric = queries is gallery and num_queries * num_candidates <= _LIST_VALUES
    block = max(64, min(_BLOCK, _BLOCK_VALUES // num_candidates))
    best = _Best(gallery.row_ND2, num_queries if is_symmetric else block, num_candidates)
    for rows, columns, score_BT in tiles(queries, gallery, (block, _TILE), is_symmetric):
        own = rows if is_symmetric else slice(0, rows.stop - rows.start)
        best.update(own, score_BT, offset=columns.start, dim=1)
        if is_symmetric and columns.stop > rows.stop:
            later = slice(max(columns.start, rows.stop), columns.stop)
            best.update(later, score_BT[:, later.start - columns.start :], offset=rows.start, dim=0)
        if columns.stop == num_items:
            yield best.pop(own)._replace(rows=rows)


class _Best:
    """The highest scores of each query up to now."""

    def __init__(self, like: Tensor, num_queries: int, num_candidates: int) -> None:
        self.score_QM = like.new_full((num_queries, num_candidates), -torch.inf)
        self.index_QM = torch.zeros_like(self.score_QM, dtype=torch.long)

    def update(self, rows: slice, score_BT: Tensor, offset: int, dim: int) -> None:
        score, index = _largest(score_BT, self.score_QM.shape[1], dim)
        score = torch.cat([self.score_QM[rows], score], dim=1)
        index = torch.cat([self.index_QM[rows], index + offset], dim=1)
        self.score_QM[rows], place = score.topk(self.score_QM.shape[1], sorted=False)
        self.index_QM[rows] = index.gather(1, place)

    def pop(self, rows: slice) -> Candidates:
        score, place = self.score_QM[rows].sort(dim=1, descending=True)
        index = self.index_QM[rows].gather(1, place)
        self.score_QM[rows] = -torch.inf
        return Candidates(rows, -2 * score, index)


def _largest(score_BT: Tensor, number: int, dim: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each row (``dim=1``) or column (``dim=0``), and where: in the groups with highest maxima.

    ``topk`` looks at each value some ten times longer than ``amax`` does.

    Returns:
        Both of shape (rows or columns, number).
    """
    width = score_BT.shape[dim] // _GROUP
    score_QT = score_BT if dim else score_BT.T
    if width < 2 * number:
        return score_QT.contiguous().topk(min(number, score_QT.shape[1]), sorted=False)
    whole = slice(0, _GROUP * width)
    # Reduced as it lies in memory, which is many times faster than through the transposed view.
    highest = (score_BT[:, whole] if dim else score_BT[whole]).unflatten(dim, (_GROUP, width)).amax(dim)
    group_QM = (highest if dim else highest.T.contiguous()).topk(number, sorted=False).indices
    member_QGM = group_QM[:, None] + width * torch.arange(_GROUP, device=score_BT.device)[:, None]
    rest = torch.arange(whole.stop, score_QT.shape[1], device=score_BT.device).expand(len(score_QT), -1)
    index_QP = torch.cat([member_QGM.flatten(1), rest], dim=1)
    score, place = score_QT.gather(1, index_QP).topk(number, sorted=False)
    return score, index_QP.gather(1, place)


def _augment(x_ND: Tensor, centre_D: Tensor) -> Points:
    row_ND2 = centre_D.new_ones(len(x_ND), x_ND.shape[1] + 2)
    centred_ND = torch.sub(x_ND, centre_D, out=row_ND2[:, :-2])
    row_ND2[:, -1] = _lengths(centred_ND) / -2
    return Points(row_ND2)


@full_precision
def _product(left_BD: Tensor, right_DT: Tensor, out: Tensor | None) -> Tensor:
    return torch.mm(left_BD, right_DT, out=out)


@full_precision
def _lengths(x_ND: Tensor) -> Tensor:
    """Squared lengths, shape (N,), without memory for the squares."""
    return torch.linalg.vector_norm(x_ND, dim=1).square()


# --------------------------------------------------------------------------------------------------
# Nearest neighbours, exact on ties, in memory that does not grow with the number of pairs.
#
# Distances are those that float64 gives: squared differences, summed. Matrix products in the dtype of the embeddings
# find candidates (:mod:`mmkd_ext.scores.neighbours`); where they leave a doubt about the order, these distances are
# computed, and decide. Equal distances are ordered by index, lowest first.

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
