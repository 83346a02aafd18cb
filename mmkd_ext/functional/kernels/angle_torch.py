"""The sum of angles in plain torch, tile by tile: runs everywhere, and is what the compiled twins are checked against.

Shape suffixes: N samples, V vertices, I and K samples at the end of the two arms of an angle.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ['angle_sum_torch']

# Cosines are computed in tiles of (vertices, ends, ends): a few fit a CPU core's cache; a GPU wants fewer launches.
_CPU_TILE, _GPU_TILE = (32, 64), (64, 256)


def angle_sum_torch(
    student_NN: Tensor, teacher_NN: Tensor, delta: float, with_slope: bool, vertices: slice
) -> tuple[Tensor, Tensor | None]:
    r"""Huber loss between cosines of the triangles with their vertex in ``vertices``, over ordered pairs of ends.

    Args:
        student_NN: Squared distances; 0 for points that coincide.
        teacher_NN: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Compute the slope, too.
        vertices: Vertices to sum over.

    Returns:
        The sum, a float64 scalar, and a matrix :math:`M`, or None, with :math:`2 (M + M^T)` the slope in the squared
        distance of each pair off the diagonal.
    """
    slope_NN = torch.zeros_like(student_NN) if with_slope else None
    loss = student_NN.new_zeros((), dtype=torch.float64)  # thousands of tiles add up
    num_vertices, num_ends = _CPU_TILE if student_NN.device.type == 'cpu' else _GPU_TILE
    student_tiles, teacher_tiles, slope_tiles = (_tiles(x, num_ends) for x in (student_NN, teacher_NN, slope_NN))
    # A new tensor for each result takes longer than to compute it: its pages come from the system one by one.
    memory = student_NN.new_empty(4, num_vertices * num_ends**2)
    for block in _slices(vertices, num_vertices):
        arms, teacher_arms = _Arms(student_NN[block], num_ends), _Arms(teacher_NN[block], num_ends)
        for row, column, weight in _half_of_pairs(len(student_tiles)):
            shape = arms.shape(row, column)
            gap_VIK, cosine_VIK, product_VIK, huber_VIK = (x[: math.prod(shape)].view(shape) for x in memory)
            teacher_arms.cosines(row, column, teacher_tiles[row][column], gap_VIK, product_VIK)
            arms.cosines(row, column, student_tiles[row][column], cosine_VIK, product_VIK)
            torch.sub(cosine_VIK, gap_VIK, out=gap_VIK)
            torch.clamp(gap_VIK, -delta, delta, out=huber_VIK)
            loss += weight * _huber_sum(gap_VIK.flatten(), huber_VIK.flatten())
            if slope_NN is not None:
                product_VIK *= huber_VIK
                cosine_VIK *= huber_VIK
                slope_tiles[row][column].sub_(product_VIK.sum(dim=0), alpha=weight)
                arms.add_to_both(row, column, product_VIK, cosine_VIK, weight)
        if slope_NN is not None:
            slope_NN[block] += arms.slope()
    return loss, slope_NN


class _Arms:
    """From V vertices to all samples: squared lengths, and 1 / (sqrt(2) length) with 0 for no length.

    Cut into tiles, as rows I and as columns K; beside them what the slopes of either end sum up.
    """

    def __init__(self, square_VN: Tensor, num_ends: int) -> None:
        self.inverse_VN = (2 * square_VN).rsqrt_().masked_fill_(square_VN == 0, 0)
        self.square_VI1, self.inverse_VI1 = (x.unsqueeze(2).split(num_ends, 1) for x in (square_VN, self.inverse_VN))
        self.square_V1K, self.inverse_V1K = (x.unsqueeze(1).split(num_ends, 2) for x in (square_VN, self.inverse_VN))
        self.sums_2VN = square_VN.new_zeros(2, *square_VN.shape)
        self.sum_tiles = [x.split(num_ends, 1) for x in self.sums_2VN]

    def shape(self, row: int, column: int) -> tuple[int, int, int]:
        return len(self.inverse_VN), self.square_VI1[row].shape[1], self.square_VI1[column].shape[1]

    def cosines(self, row: int, column: int, square_IK: Tensor, cosine_VIK: Tensor, product_VIK: Tensor) -> None:
        """Write cosines between arms, and 1 / (2 length length), their slope in the squares."""
        torch.mul(self.inverse_VI1[row], self.inverse_V1K[column], out=product_VIK)
        torch.add(self.square_VI1[row], self.square_V1K[column], out=cosine_VIK)
        cosine_VIK.sub_(square_IK).mul_(product_VIK)

    def add_to_both(self, row: int, column: int, product_VIK: Tensor, cosine_VIK: Tensor, weight: float) -> None:
        """Add what each pair of arms contributes to the slope of the arm at either end."""
        for tiles, value_VIK in zip(self.sum_tiles, (product_VIK, cosine_VIK), strict=True):
            tiles[row].add_(value_VIK.sum(dim=2), alpha=weight)
            tiles[column].add_(value_VIK.sum(dim=1), alpha=weight)

    def slope(self) -> Tensor:
        """The slope in the squared lengths of the arms."""
        product_VN, cosine_VN = self.sums_2VN
        return product_VN.addcmul_(self.inverse_VN.square(), cosine_VN, value=-1)


def _huber_sum(gap: Tensor, slope: Tensor) -> Tensor:
    """Huber loss of both orders of a pair, from the gap and its clamped value, which is the loss's slope."""
    return 2 * torch.dot(slope, gap) - torch.dot(slope, slope)


def _slices(whole: slice, size: int) -> list[slice]:
    return [slice(start, min(start + size, whole.stop)) for start in range(whole.start, whole.stop, size)]


def _tiles(x_NN: Tensor | None, size: int) -> list[tuple[Tensor, ...]]:
    return [] if x_NN is None else [rows.split(size, 1) for rows in x_NN.split(size)]


def _half_of_pairs(num_tiles: int) -> Iterator[tuple[int, int, float]]:
    """Tiles (row, column) that hold each pair once, with weight 1, or in both orders, with weight 1/2 each."""
    for row in range(num_tiles):
        yield row, row, 0.5
        for column in range(row + 1, num_tiles):
            yield row, column, 1.0
