"""The sum of angles on a GPU: two Triton kernels without atomics, so that results do not change from run to run.

Squared distances are float64 there. What is cubic in the batch runs in float32, but for vertices whose nearest sample
is so much closer than their farthest that float32 cancels in their cosines: a second launch takes those in float64.
Which vertices these are stays on the device, so the host waits for nothing.

An arm's inverse is a = 1 / sqrt(2 d2), its half b = a d2; then cos(i, j, k) = a_ji (b_jk - a_jk d2_ik) + b_ji a_jk.
Huber's loss is h (gap - h / 2) with h = clamp(gap, -delta, delta). Kernels name the student s, the teacher t.

Shape suffixes: N samples, V vertices; tiles of J vertices, I and K ends of arms.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

# ruff: noqa: ANN001, ANN202 - what Triton compiles has types of its own


# A vertex is taken in float64 if its nearest sample has less than this share of the squared distance of its farthest.
_CLOSE = 1e-2
# Tiles of (vertices, ends) and of (ends, ends).
_ARM_TILE, _PAIR_TILE = (32, 32), (64, 64)


def angle_sum_triton(
    student_NN: Tensor, teacher_NN: Tensor, delta: float, with_slope: bool, vertices: slice, exact: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Compute :func:`~mmkd_ext.ops.geometry.angle_sum_torch` without waiting for the device.

    Args:
        student_NN: Squared distances, float64.
        teacher_NN: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Return the slope, too.
        vertices: Vertices to sum over.
        exact: Take all vertices in float64.

    Returns:
        The same as the torch function.
    """
    num_samples, num_vertices = len(student_NN), vertices.stop - vertices.start
    arm_grid = triton.cdiv(max(num_vertices, 1), _ARM_TILE[0]), triton.cdiv(num_samples, _ARM_TILE[1])
    pair_grid = triton.cdiv(num_samples, _PAIR_TILE[0]), triton.cdiv(num_samples, _PAIR_TILE[1])
    slope_NN = torch.zeros_like(student_NN)
    loss = student_NN.new_zeros(arm_grid)
    order_V, bounds = _by_precision(student_NN, teacher_NN, vertices, exact)
    for dtype, bound in ((torch.float32, bounds[:2]), (torch.float64, bounds[1:])):
        networks = student_NN, teacher_NN
        arms = [x.to(dtype) for square_NN in networks for x in (_inverse(square_NN), square_NN)]
        settings = order_V, bound, student_NN.new_full((), delta, dtype=dtype), num_samples
        _add_arms[arm_grid](*arms, slope_NN, loss, *settings, *_ARM_TILE)
        if with_slope:
            _add_pairs[pair_grid](*arms, slope_NN, *settings, *_PAIR_TILE, num_warps=8)
    return loss.sum(), slope_NN if with_slope else None


def _by_precision(student_NN: Tensor, teacher_NN: Tensor, vertices: slice, exact: bool) -> tuple[Tensor, Tensor]:
    """Vertices, those for float32 first; where these start and stop and the others stop, on the device."""
    is_close_V = torch.full((vertices.stop - vertices.start,), exact, device=student_NN.device)
    for square_NN in (student_NN, teacher_NN):
        square_VN = square_NN[vertices]
        nearest_V = square_VN.masked_fill(square_VN == 0, torch.inf).amin(dim=1)
        is_close_V |= nearest_V < _CLOSE * square_VN.amax(dim=1)
    num_single = is_close_V.logical_not().sum()
    bounds = torch.stack([torch.zeros_like(num_single), num_single, torch.full_like(num_single, len(is_close_V))])
    return vertices.start + is_close_V.int().argsort(stable=True), bounds


def _inverse(square_NN: Tensor) -> Tensor:
    return (2 * square_NN).rsqrt().masked_fill_(square_NN == 0, 0)


@triton.jit
def _huber(arm_i, arm_k, square_s, square_t, delta):
    """Cosine of the student, gap to the teacher's, slope of Huber's loss."""
    inverse_si, half_si, inverse_ti, half_ti = arm_i
    inverse_sk, half_sk, inverse_tk, half_tk = arm_k
    cosine = inverse_si * (half_sk - inverse_sk * square_s) + half_si * inverse_sk
    gap = cosine - inverse_ti * (half_tk - inverse_tk * square_t) - half_ti * inverse_tk
    return cosine, gap, tl.minimum(tl.maximum(gap, -delta), delta)


@triton.jit
def _load_arms(inverse_s, square_s, inverse_t, square_t, place, mask):
    """Inverse and half of arms in both networks; 0 where there is none."""
    inverse_sa, inverse_ta = tl.load(inverse_s + place, mask, 0.0), tl.load(inverse_t + place, mask, 0.0)
    half_sa = inverse_sa * tl.load(square_s + place, mask, 0.0)
    half_ta = inverse_ta * tl.load(square_t + place, mask, 0.0)
    return inverse_sa, half_sa, inverse_ta, half_ta


@triton.jit
def _add_arms(
    inverse_s, square_s, inverse_t, square_t,
    slope, loss, order, bounds, delta_of, n, size_j: tl.constexpr, size_i: tl.constexpr,
):  # fmt: skip
    """Slope in the arms of J vertices to I ends, and the loss of these, over all other ends."""
    place = tl.load(bounds) + tl.program_id(0) * size_j + tl.arange(0, size_j)
    is_vertex = place < tl.load(bounds + 1)
    vertex = tl.load(order + place, mask=is_vertex, other=0)[:, None]
    is_vertex = is_vertex[:, None]
    end = tl.program_id(1) * size_i + tl.arange(0, size_i)[None, :]
    arm, is_arm = vertex * n + end, is_vertex & (end < n)
    arm_i = _load_arms(inverse_s, square_s, inverse_t, square_t, arm, is_arm)
    inverse_si, delta = arm_i[0], tl.load(delta_of)
    product, turn, total = tl.zeros_like(inverse_si), tl.zeros_like(inverse_si), tl.zeros_like(inverse_si)
    # Nothing to do is the rule in float64.
    for k in range(tl.where(tl.max(is_vertex.to(tl.int32)) > 0, n, 0)):
        arm_k = _load_arms(inverse_s, square_s, inverse_t, square_t, vertex * n + k, is_vertex)
        pair_s, pair_t = tl.load(square_s + k * n + end, end < n, 0.0), tl.load(square_t + k * n + end, end < n, 0.0)
        cosine, gap, huber = _huber(arm_i, arm_k, pair_s, pair_t, delta)
        total += huber * (gap - 0.5 * huber)
        product += huber * arm_k[0]
        turn += huber * cosine
    change = inverse_si * product - inverse_si * inverse_si * turn
    tl.store(slope + arm, tl.load(slope + arm, is_arm, 0.0) + change, is_arm)
    program = loss + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(program, tl.load(program) + tl.sum(total.to(tl.float64)))


@triton.jit
def _add_pairs(
    inverse_s, square_s, inverse_t, square_t,
    slope, order, bounds, delta_of, n, size_i: tl.constexpr, size_k: tl.constexpr,
):  # fmt: skip
    """Slope in the pairs of I and K ends, on or above the diagonal, over all vertices."""
    if tl.program_id(1) < tl.program_id(0):
        return
    row = tl.program_id(0) * size_i + tl.arange(0, size_i)[:, None]
    column = tl.program_id(1) * size_k + tl.arange(0, size_k)[None, :]
    pair, is_pair = row * n + column, (row < n) & (column < n)
    pair_s, pair_t = tl.load(square_s + pair, is_pair, 0.0), tl.load(square_t + pair, is_pair, 0.0)
    pulled, delta = tl.zeros_like(pair_s), tl.load(delta_of)
    for place in range(tl.load(bounds), tl.load(bounds + 1)):
        start = tl.load(order + place) * n
        arm_i = _load_arms(inverse_s, square_s, inverse_t, square_t, start + row, row < n)
        arm_k = _load_arms(inverse_s, square_s, inverse_t, square_t, start + column, column < n)
        _, _, huber = _huber(arm_i, arm_k, pair_s, pair_t, delta)
        pulled += huber * arm_i[0] * arm_k[0]
    # In a tile on the diagonal a pair comes in both orders.
    weight = tl.where(tl.program_id(0) == tl.program_id(1), 0.5, 1.0)
    tl.store(slope + pair, tl.load(slope + pair, is_pair, 0.0) - weight * pulled, is_pair)
