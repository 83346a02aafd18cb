"""The sum of angles in plain torch, tile by tile: runs everywhere, and is what the compiled twins are checked against.

Shape suffixes: N samples, V vertices, I and K samples at the end of the two arms of an angle.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ['angle_sum_torch']

# Cosines are computed in tiles of (vertices, ends, ends): a few fit a CPU core's cache; a GPU wants fewer launches.
_CPU_TILE, _GPU_TILE = (16, 64), (64, 256)


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
    for block in _slices(vertices, num_vertices):
        arms, teacher_arms = _Arms(student_NN, block), _Arms(teacher_NN, block)
        product_sum_VN, cosine_sum_VN = torch.zeros_like(arms.square_VN), torch.zeros_like(arms.square_VN)
        for rows, columns, weight in _half_of_pairs(len(student_NN), num_ends):
            cosine_VIK, product_VIK = arms.cosines(rows, columns)
            gap_VIK = cosine_VIK - teacher_arms.cosines(rows, columns)[0]
            huber_VIK = gap_VIK.clamp(-delta, delta)
            loss += weight * _huber_sum(gap_VIK.flatten(), huber_VIK.flatten())
            if slope_NN is not None:
                product_VIK *= huber_VIK
                cosine_VIK *= huber_VIK
                slope_NN[rows, columns].sub_(product_VIK.sum(dim=0), alpha=weight)
                _add_both_ends(product_sum_VN, product_VIK, rows, columns, weight)
                _add_both_ends(cosine_sum_VN, cosine_VIK, rows, columns, weight)
        if slope_NN is not None:
            slope_NN[block] += product_sum_VN.addcmul_(arms.inverse_VN.square(), cosine_sum_VN, value=-1)
    return loss, slope_NN


class _Arms:
    """From V vertices to all samples: squared lengths, and 1 / (sqrt(2) length) with 0 for no length."""

    def __init__(self, square_NN: Tensor, vertices: slice) -> None:
        self.square_NN = square_NN
        self.square_VN = square_NN[vertices]
        self.inverse_VN = (2 * self.square_VN).rsqrt_().masked_fill_(self.square_VN == 0, 0)

    def cosines(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Cosines between arms to ``rows`` and ``columns``; 1 / (2 length length), their slope in the squares."""
        product_VIK = self.inverse_VN[:, rows, None] * self.inverse_VN[:, None, columns]
        numerator_VIK = self.square_VN[:, rows, None] + self.square_VN[:, None, columns]
        return numerator_VIK.sub_(self.square_NN[rows, columns]).mul_(product_VIK), product_VIK


def _huber_sum(gap: Tensor, slope: Tensor) -> Tensor:
    """Huber loss of both orders of a pair, from the gap and its clamped value, which is the loss's slope."""
    return 2 * torch.dot(slope, gap) - torch.dot(slope, slope)


def _slices(whole: slice, size: int) -> list[slice]:
    return [slice(start, min(start + size, whole.stop)) for start in range(whole.start, whole.stop, size)]


def _half_of_pairs(num_samples: int, size: int) -> Iterator[tuple[slice, slice, float]]:
    """Tiles of (rows, columns) that hold each pair once, with weight 1, or in both orders, with weight 1/2 each."""
    slices = _slices(slice(0, num_samples), size)
    for place, rows in enumerate(slices):
        yield rows, rows, 0.5
        for columns in slices[place + 1 :]:
            yield rows, columns, 1.0


def _add_both_ends(sum_VN: Tensor, value_VIK: Tensor, rows: slice, columns: slice, weight: float) -> None:
    """Add what each pair of arms contributes to the arm at either end."""
    sum_VN[:, rows].add_(value_VIK.sum(dim=2), alpha=weight)
    sum_VN[:, columns].add_(value_VIK.sum(dim=1), alpha=weight)
