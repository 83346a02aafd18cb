r"""Nearest neighbours, exact on ties, in memory that does not grow with the number of pairs.

Distances are those that float64 gives: squared differences, summed; equal ones are ordered by index, lowest first.
Matrix products in the dtype of the embeddings screen, tile by tile. With the columns :math:`(x, 1, -|x|^2/2)` against
:math:`(y, -|y|^2/2, 1)`, one product gives the *score* :math:`-|x-y|^2/2`. Its rounding errors, those of the squared
lengths and of the centring leave for the approximate squared distance a, in D dims and for a machine epsilon
:math:`\epsilon`,

.. math:: |a - |x-y|^2| \leq (1.5 D + 4)\,\epsilon\,(|x|^2 + |y|^2) \leq (1.5 D + 4)\,\epsilon\,(3|x|^2 + 2|x-y|^2)

whatever the order of the summation; the second step is the triangle inequality. So the K-th best score of a query sets
a *cut*: what scores lower is not among its K nearest. Pairs above the cut are noted, and in the end the float64
distances of the few that are still above it decide.

Written by hand because no library keeps both promises (``docs/libraries.md``): faiss and ``topk`` over
products rank near ties as rounding has it, and take the products of a set with itself twice.

Shape suffixes: Q queries, G gallery items, B queries of a block, T items of a tile, W groups of items, M members of a
group, E groups looked into, P pairs, K neighbours, D dims.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd_ext.ops.arguments import check_dims, full_precision, products_are_exact

_TILE = 2048
_GROUP = 16
# Neighbours of a block, so that many neighbours mean smaller blocks.
_BLOCK_VALUES = 2**21
# Neighbours of all queries, for which memory is spent to compute every product only once.
_LIST_VALUES = 2**23
# Values at once: of differences, few enough for the processor's cache; of scores that are looked at one by one.
_DIFFERENCES = 2**15
_SCORES = 2**22
# Largest magnitudes of at least two to this power are left as they are: unit vectors need no copy.
_SMALL = -10
# Pairs that a query may note, beyond a multiple of K.
_PAIRS = 64


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

    Example:
        >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [5.0]]), k=1)  # of each other
        tensor([[1],
                [0],
                [1]])
    """
    blocks = [index_BK for _, index_BK in neighbour_blocks(queries, gallery, k)]
    return torch.cat(blocks) if blocks else torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)


def neighbour_blocks(queries: Tensor, gallery: Tensor | None = None, k: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """Do what :func:`nearest_neighbours` does block by block, for results too large to hold.

    Args:
        queries: Finite embeddings, shape (Q, D), any floating dtype.
        gallery: Finite embeddings, shape (G, D); None for the other queries.
        k: K, at least 1.

    Yields:
        Consecutive queries, and their neighbours of shape (B, K), int64.

    Raises:
        ValueError: If shapes do not fit, ``k`` is below 1, or a value is NaN or infinite.
    """
    is_own = gallery is None
    _check(queries, queries if gallery is None else gallery, k)
    number = min(k, len(queries) - 1 if gallery is None else len(gallery))
    if not len(queries) or number < 1:
        return
    points, items = prepare(queries, gallery)
    # Of a set with itself every product is computed once, for the tile and for its transpose.
    is_symmetric = is_own and len(queries) * number <= _LIST_VALUES
    step = max(64, min(_TILE, _BLOCK_VALUES // number))
    group = _GROUP if 2 * number * _GROUP <= step else 1
    blocks: dict[int, _Block] = {}
    for rows in _slices(0, len(queries), step):
        for columns in _slices(rows.start if is_symmetric else 0, len(items), step):
            score_BT = points.scores(rows, items, columns)
            if is_own:
                _blank_own(score_BT, rows.start - columns.start)
            if rows.start not in blocks:
                blocks[rows.start] = _Block(points, items, rows, number)
            blocks[rows.start].update(*_grouped(score_BT, group, dim=1), columns.start)
            if is_symmetric and columns.start > rows.start:
                if columns.start not in blocks:
                    blocks[columns.start] = _Block(points, items, columns, number)
                blocks[columns.start].update(*_grouped(score_BT, group, dim=0), rows.start)
        yield rows, blocks.pop(rows.start).settle(is_own)


@dataclass(frozen=True)
class Embeddings:
    """Vectors, and what the matrix product takes of them.

    Attributes:
        x_ND: Vectors of magnitudes at most 1, float32 or float64.
        row_ND2: The same centred, 1, and minus half their squared length.
    """

    x_ND: Tensor
    row_ND2: Tensor

    def __len__(self) -> int:
        return len(self.x_ND)

    def scores(self, rows: slice | Tensor, other: 'Embeddings', columns: slice) -> Tensor:
        """Minus half the squared distances of some vectors to some others, approximately: (rows, columns).

        Args:
            rows: These vectors.
            other: Prepared together with them.
            columns: The others.
        """
        turned_TD2 = other.row_ND2[columns].clone()
        turned_TD2[:, -2:] = turned_TD2[:, -2:].flip(1)
        return _product(self.row_ND2[rows], turned_TD2.T)

    def bound(self, rows: slice | Tensor, square_BM: Tensor) -> Tensor:
        """How far apart the true and an approximate squared distance may be, given either: shape of ``square_BM``.

        Args:
            rows: The vectors that distances were measured from.
            square_BM: Their squared distances.
        """
        num_dims, limits = self.x_ND.shape[1], torch.finfo(self.row_ND2.dtype)
        length_B1 = -2 * self.row_ND2[rows, -1:]
        # A little more than the formula, for the errors of the terms that the bound itself is made of.
        share = (1.52 * num_dims + 8) * limits.eps
        return share * (3 * length_B1 + 2 * square_BM.clamp(min=0)) + 4 * num_dims * limits.tiny

    def squares(self, query_P: Tensor, other: 'Embeddings', item_P: Tensor) -> Tensor:
        """Squared distances of pairs as float64 gives them, shape (P,).

        Args:
            query_P: Index of each pair's vector here.
            other: Prepared together with these.
            item_P: Index of its vector there.
        """
        step = max(1, _DIFFERENCES // self.x_ND.shape[1])
        parts = [
            self.x_ND.index_select(0, query).double().sub_(other.x_ND.index_select(0, item)).square_().sum(dim=1)
            for query, item in zip(query_P.split(step), item_P.split(step), strict=True)
        ]
        return torch.cat(parts)


def prepare(queries: Tensor, gallery: Tensor | None) -> tuple[Embeddings, Embeddings]:
    """Scale and centre two sets together.

    They are divided by a power of two, which keeps the order of distances and takes squares into the dtype's range.

    Args:
        queries: Shape (Q, D), any floating dtype.
        gallery: Shape (G, D); None for the queries.

    Returns:
        Queries and gallery; one object twice without ``gallery``.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    if gallery is not None:
        dtype = torch.promote_types(gallery.dtype, dtype)
    both = [x_ND.detach().to(dtype) for x_ND in (queries, gallery) if x_ND is not None]
    exponent = torch.frexp(torch.stack([x for x_ND in both for x in x_ND.aminmax()]).abs().amax()).exponent
    if not _SMALL <= exponent <= 0:
        both = [torch.ldexp(x_ND, -exponent) for x_ND in both]
    # The bound on errors does not hold for products that a GPU or CPU may take in shorter numbers.
    centre_D = both[-1].mean(dim=0, dtype=dtype if products_are_exact() else torch.float64)
    prepared = [Embeddings(x_ND, _augment(x_ND, centre_D)) for x_ND in both]
    return prepared[0], prepared[-1]


class _Block:
    """What may be among the nearest items of some queries, as far as the tiles up to now tell."""

    def __init__(self, queries: Embeddings, gallery: Embeddings, rows: slice, number: int) -> None:
        self.queries, self.gallery, self.rows = queries, gallery, rows
        # The highest scores, each of another group; in the end, the K-th nearest item scores no lower than the last.
        self.best_BK = queries.row_ND2.new_full((rows.stop - rows.start, number), -torch.inf)
        self.most = _PAIRS + 16 * number
        self.num_pairs_B = torch.zeros(len(self.best_BK), dtype=torch.long, device=self.best_BK.device)
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, score_BT: Tensor, highest_BW: Tensor, first_item: int) -> None:
        """Take in a tile.

        Args:
            score_BT: Scores of the queries and some items.
            highest_BW: Highest score of each group; the members of a group lie W items apart.
            first_item: Index of the tile's first item.
        """
        # Fewer, larger groups do for the cut, and topk takes long.
        number, width = self.best_BK.shape[1], highest_BW.shape[1]
        coarse_BW = F.max_pool1d(highest_BW, 4) if width >= 16 * number else highest_BW
        self.best_BK = torch.cat([self.best_BK, coarse_BW], dim=1).topk(number, sorted=True).values
        # With too many pairs, as copies of one vector have, a query is looked at on its own in the end.
        cut_B = self._cuts().masked_fill(self.num_pairs_B > self.most, torch.inf)
        row_E, group_E = (highest_BW >= cut_B[:, None]).nonzero(as_tuple=True)
        score_EM = score_BT.unflatten(1, (-1, width)).transpose(1, 2)[row_E, group_E]
        entry_P, member_P = (score_EM >= cut_B[row_E, None]).nonzero(as_tuple=True)
        row_P, item_P = row_E[entry_P], group_E[entry_P] + width * member_P + first_item
        self.num_pairs_B += row_P.bincount(minlength=len(cut_B))
        self.pairs.append((row_P, item_P, score_EM[entry_P, member_P]))

    def settle(self, is_own: bool) -> Tensor:
        """Return the nearest items by true distances and, where these are equal, by index: (B, K)."""
        row_P, item_P, score_P = (torch.cat(parts) for parts in zip(*self.pairs, strict=True))
        is_crowded_B = self.num_pairs_B > self.most
        is_left_P = (score_P >= self._cuts()[row_P]) & ~is_crowded_B[row_P]
        query_B = torch.arange(self.rows.start, self.rows.stop, device=row_P.device)
        nearest_BK = torch.empty_like(self.best_BK, dtype=torch.long)
        nearest_BK[~is_crowded_B] = self._sorted(row_P[is_left_P], item_P[is_left_P], query_B, self.best_BK.shape[1])
        if is_crowded_B.any():
            nearest_BK[is_crowded_B] = self._search(is_crowded_B.nonzero()[:, 0], is_own)
        return nearest_BK

    def _cuts(self) -> Tensor:
        """Scores that an item must reach to be among the nearest, shape (B,)."""
        farthest_B1 = -2 * self.best_BK[:, -1:]
        farthest_B1 = farthest_B1 + self.queries.bound(self.rows, farthest_B1)  # of true distances
        farthest_B1 = farthest_B1 + self.queries.bound(self.rows, farthest_B1)  # of approximate ones again
        return farthest_B1[:, 0].div(-2).clamp(min=torch.finfo(farthest_B1.dtype).min)  # above what was blanked

    def _sorted(self, row_P: Tensor, item_P: Tensor, query_R: Tensor, number: int) -> Tensor:
        """The first items of each row, (rows, number), of pairs in any order; rows stand for queries."""
        square_P = self.queries.squares(query_R[row_P], self.gallery, item_P)
        for key in (1, 2, 0):  # the last key decides first
            order_P = (row_P, item_P, square_P)[key].argsort(stable=True)
            row_P, item_P, square_P = row_P[order_P], item_P[order_P], square_P[order_P]
        number_R = row_P.unique_consecutive(return_counts=True)[1]
        first_R1 = (number_R.cumsum(0) - number_R)[:, None]
        return item_P[first_R1 + torch.arange(number, device=item_P.device)]

    def _search(self, row_R: Tensor, is_own: bool) -> Tensor:
        """Look at the whole gallery, once for queries that coincide: (rows, K)."""
        query_R = row_R + self.rows.start
        distinct, of_R = self.queries.x_ND[query_R].unique(dim=0, return_inverse=True)
        one_U = torch.empty(len(distinct), dtype=torch.long, device=of_R.device).index_copy_(0, of_R, row_R)
        cut_B1 = self._cuts()[:, None]
        found_UK = []
        for row_S in one_U.split(max(1, _SCORES // len(self.gallery))):
            score_SG = self.queries.scores(row_S + self.rows.start, self.gallery, slice(None))
            # Up to here a query is its own neighbour, too.
            row_P, item_P = (score_SG >= cut_B1[row_S]).nonzero(as_tuple=True)
            found_UK.append(self._sorted(row_P, item_P, row_S + self.rows.start, self.best_BK.shape[1] + is_own))
        index_RK = torch.cat(found_UK)[of_R]
        if not is_own:
            return index_RK
        is_other_RK = index_RK != query_R[:, None]
        is_other_RK[:, -1] &= ~is_other_RK.all(dim=1)  # the last one goes where ties hide the query itself
        return index_RK[is_other_RK].view(len(row_R), -1)


def _check(queries: Tensor, gallery: Tensor, k: int) -> None:
    """Refuse embeddings between which there are no distances."""
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
    if k < 1:
        raise ValueError(f'nearest_neighbours: expected k >= 1 but got {k}; ask for one neighbour or more')


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    return (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def _grouped(score_BT: Tensor, group: int, dim: int) -> tuple[Tensor, Tensor]:
    """A tile of (queries, items), turned for ``dim=0``, and the highest score of each group of its items."""
    missing = -score_BT.shape[dim] % group
    if missing:
        score_BT = F.pad(score_BT, (0, missing) if dim else (0, 0, 0, missing), value=-torch.inf)
    # Reduced as it lies in memory, which is many times faster than through the turned view.
    highest = score_BT.unflatten(dim, (group, -1)).amax(dim)
    return (score_BT, highest) if dim else (score_BT.T, highest.T)


def _blank_own(score_BT: Tensor, first: int) -> None:
    """Take each query's own score away; row 0 of the tile is the item of column ``first``."""
    if -score_BT.shape[0] < first < score_BT.shape[1]:
        score_BT.diagonal(first).fill_(-torch.inf)


def _augment(x_ND: Tensor, centre_D: Tensor) -> Tensor:
    row_ND2 = centre_D.new_ones(len(x_ND), x_ND.shape[1] + 2)
    centred_ND = torch.sub(x_ND, centre_D, out=row_ND2[:, :-2])
    row_ND2[:, -1] = _lengths(centred_ND) / -2
    return row_ND2


@full_precision
def _product(left_BD: Tensor, right_DT: Tensor) -> Tensor:
    return left_BD @ right_DT


@full_precision
def _lengths(x_ND: Tensor) -> Tensor:
    """Squared lengths, shape (N,), without memory for the squares."""
    return torch.linalg.vector_norm(x_ND, dim=1).square()
