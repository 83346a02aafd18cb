"""What relational knowledge distillation sums up, with its slope in the squared distances, in closed form.

Shape suffixes: N samples, R rows of the relation, V vertices, I and K samples at the end of the two arms of an angle.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mmkd_ext.functional.gather import sum_with_grad
from mmkd_ext.functional.pairwise import Points

__all__ = ['angle_sum', 'distance_sum']

# Cosines are computed in tiles of (vertices, ends, ends): a few fit a CPU core's cache; a GPU wants fewer launches.
_CPU_TILE, _GPU_TILE = (16, 64), (64, 256)


def distance_sum(
    student: Points, teacher: Points, delta: float, with_slope: bool, rows: slice | None = None
) -> tuple[Tensor, Tensor | None]:
    """Huber loss between distances, each over the mean of all pairs, summed over ordered pairs.

    Args:
        student: What :func:`~mmkd_ext.functional.pairwise.pairwise` made of its features, of these rows.
        teacher: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Compute the slope, too.
        rows: Rows that this process has while the others have the rest; means then run over processes; None for all.

    Returns:
        The sum, a scalar, and the slope that :func:`~mmkd_ext.functional.pairwise.position_gradient` takes, or None.
    """
    add_up = Tensor.sum if rows is None else _sum_over_processes
    distance_RN, target_RN = student.square_RN.sqrt(), teacher.square_RN.sqrt()
    num_pairs = math.perm(len(student.x_ND), 2)
    inverse_mean, inverse_target_mean = (_inverse(add_up(x_RN), num_pairs) for x_RN in (distance_RN, target_RN))
    gap_RN = distance_RN * inverse_mean - target_RN.mul_(inverse_target_mean)
    huber_RN = gap_RN.clamp(-delta, delta)
    loss = gap_RN.sub_(huber_RN, alpha=0.5).mul_(huber_RN).sum()
    if not with_slope:
        return loss, None
    # d psi / d d^2 = (1 - [psi's share through the mean]) / (2 d mu); coinciding points have no slope. A sample's pairs
    # are all in its row, in both orders: so these rows have the gradient in their own samples complete.
    through_mean = add_up(huber_RN * distance_RN) * inverse_mean / num_pairs
    inverse_RN = distance_RN.masked_fill_(distance_RN == 0, torch.inf).reciprocal_()
    return loss, huber_RN.sub_(through_mean).mul_(inverse_RN.mul_(inverse_mean))


def _sum_over_processes(x_RN: Tensor) -> Tensor:
    # Always sent as float64: each process chooses the dtype of its rows for itself.
    return sum_with_grad(x_RN.sum().double()).to(x_RN.dtype)


def _inverse(total: Tensor, count: int) -> Tensor:
    """One over the mean; 0 if there is nothing in total."""
    return torch.where(total > 0, count / total, 0)


def angle_sum(
    student: Points, teacher: Points, delta: float, with_slope: bool, rows: slice | None = None
) -> tuple[Tensor, Tensor | None]:
    """Huber loss between cosines, summed over vertices and ordered pairs of ends.

    Args:
        student: What :func:`~mmkd_ext.functional.pairwise.pairwise` made of its features, of all rows.
        teacher: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Compute the slope, too.
        rows: Vertices to sum over; None for all.

    Returns:
        The sum, a scalar, and the slope that :func:`~mmkd_ext.functional.pairwise.position_gradient` takes, or None.
    """
    square_NN = student.square_RN
    slope_NN = torch.zeros_like(square_NN) if with_slope else None
    loss = square_NN.new_zeros((), dtype=torch.float64)  # thousands of tiles add up
    num_vertices, num_ends = _CPU_TILE if square_NN.device.type == 'cpu' else _GPU_TILE
    for vertices in _slices(rows or student.rows, num_vertices):
        arms, teacher_arms = _Arms(square_NN, vertices), _Arms(teacher.square_RN, vertices)
        product_sum_VN, cosine_sum_VN = torch.zeros_like(arms.square_VN), torch.zeros_like(arms.square_VN)
        for rows, columns, weight in _half_of_pairs(len(square_NN), num_ends):
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
            slope_NN[vertices] += product_sum_VN.addcmul_(arms.inverse_VN.square(), cosine_sum_VN, value=-1)
    return loss, slope_NN if slope_NN is None else (slope_NN + slope_NN.T).mul_(2)


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
