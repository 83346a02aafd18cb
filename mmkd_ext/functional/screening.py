r"""Candidates for the nearest neighbours: matrix products over tiles, with a bound on how far off they may be.

With the columns :math:`(x, 1, -|x|^2/2)` against :math:`(y, -|y|^2/2, 1)`, one matrix product gives
:math:`-|x-y|^2/2`. Its rounding errors, those of the squared lengths and of the centring leave, in D dims and for a
machine epsilon :math:`\epsilon`,

.. math:: |a - |x-y|^2| \leq (1.5 D + 4)\,\epsilon\,(|x|^2 + |y|^2) \leq (1.5 D + 4)\,\epsilon\,(3|x|^2 + 2|x-y|^2)

whatever the order of the summation; the second step is the triangle inequality.

Shape suffixes: Q queries, G gallery items, B queries of a block, T gallery items of a tile, M candidates, D dims.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmkd_ext.functional.sharing import full_precision, products_are_exact

__all__ = ['Candidates', 'Points', 'screen', 'tiles', 'to_points']

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
