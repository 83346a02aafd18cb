"""What relational knowledge distillation sums up, with its slope in the squared distances, in closed form.

Shape suffixes: N samples, R rows of the relation, P rows at a time.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from mmkd_ext.functional.gather import sum_with_grad
from mmkd_ext.functional.kernels.choice import angle_path, angle_sum_by
from mmkd_ext.functional.pairwise import Points, row_parts

__all__ = ['angle_sum', 'distance_sum']

_TILE = 128


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
    distance_RN, target_RN = student.square_RN.sqrt(), teacher.square_RN.sqrt()
    parts = row_parts(distance_RN)
    num_pairs = math.perm(len(student.x_ND), 2)
    zero = distance_RN.new_zeros((), dtype=torch.float64)  # thousands of parts may add up
    totals = (sum((x_RN[part].sum() for part in parts), zero) for x_RN in (distance_RN, target_RN))
    inverse_mean, inverse_target_mean = (_inverse(_over_processes(total, rows), num_pairs) for total in totals)
    loss, pull = zero.clone(), zero.clone()
    for part in parts:
        gap_PN = target_RN[part].mul_(-inverse_target_mean).add_(distance_RN[part] * inverse_mean)
        huber_PN = gap_PN.clamp(-delta, delta)
        loss += gap_PN.sub_(huber_PN, alpha=0.5).mul_(huber_PN).sum()
        if with_slope:
            pull += torch.mul(huber_PN, distance_RN[part], out=gap_PN).sum()
            target_RN[part] = huber_PN
    if not with_slope:
        return loss, None
    through_mean = _over_processes(pull, rows) * inverse_mean / num_pairs
    return loss, _distance_slope(target_RN, distance_RN, through_mean, inverse_mean)


def _distance_slope(huber_RN: Tensor, distance_RN: Tensor, through_mean: Tensor, inverse_mean: Tensor) -> Tensor:
    r"""Turn Huber's slopes into those in the squared distances, in place.

    :math:`d \psi / d d^2` = (1 - [psi's share through the mean]) / (2 d mu); coinciding points have no slope. A
    sample's pairs are all in its row, in both orders: so these rows have the gradient in their own samples complete.
    """
    inverse_RN = functional.threshold_(distance_RN, 0.0, math.inf).reciprocal_()
    return huber_RN.sub_(through_mean).mul_(inverse_RN.mul_(inverse_mean))


def _over_processes(total: Tensor, rows: slice | None) -> Tensor:
    return total if rows is None else sum_with_grad(total)


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
    path = angle_path(square_NN.device, square_NN.dtype)
    sum_up = angle_sum_by(path, exact=torch.float64 in (student.dtype, teacher.dtype))
    loss, slope_NN = sum_up(square_NN, teacher.square_RN, delta, with_slope, rows or student.rows)
    return loss, slope_NN if slope_NN is None else _both_orders(slope_NN)


def _both_orders(slope_NN: Tensor) -> Tensor:
    """Turn M into 2 (M + M^T), in place and tile by tile: at 12,000 samples a second matrix is half a gigabyte."""
    starts = range(0, len(slope_NN), _TILE)
    tiles = [slice(start, start + _TILE) for start in starts]
    for place, rows in enumerate(tiles):
        for columns in tiles[place:]:
            tile = (slope_NN[rows, columns] + slope_NN[columns, rows].T).mul_(2)
            slope_NN[rows, columns] = tile
            slope_NN[columns, rows] = tile.T
    return slope_NN
