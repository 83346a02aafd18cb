r"""Distances and angles between the samples of a batch: what relation losses measure.

* Smooth functions of squared distances take :func:`squared_distances`, which autograd differentiates.
* Losses of the distances themselves, or of their ratios, take :func:`pairwise` and :func:`position_gradient`.

The Gram matrix gives all distances of a batch for the price of one matrix product, and loses what it subtracts: with
an offset of a thousand spreads, or between near-duplicates, nothing is left of a float32 distance. Three things help
:func:`pairwise`:

* features are centred, and in float64 also divided by a power of two, which costs no digit;
* on the CPU, one pair that float32 cannot resolve, or lengths near its limits, are enough to redo the batch in
  float64, and leave to take products in shorter numbers (``torch.set_float32_matmul_precision``) to do it at once;
* on other devices, which must know float64, all is float64 from the start: to look for such a pair would make the
  host wait in every step.

Angles are summed in plain torch, tile by tile, which runs everywhere and is what the compiled ways are checked against;
on a GPU :mod:`mmkd_ext.ops.angle_triton` is faster, on a CPU the kernel in ``angle.c`` beside this file.

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), P of these at a
time, D dims.
Of angles: N samples, V vertices, I and K samples at the end of the two arms of an angle.
"""

import ctypes
import functools
import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import once, products_are_exact
from mmkd_ext.ops.build import build_library

# From so many multiplications on, a symmetric product is computed in stripes, each only from the diagonal on: up to
# four, of at least so many rows.
_STRIPED, _STRIPES, _STRIPE = 2**25, 4, 128


def inner_products(x_ND: Tensor, rows: slice | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Products of some rows with all, and the squared lengths of both.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: Rows of the relation; None for all.

    Returns:
        Shapes (R, N), (R, 1), (N,).
    """
    product_RN = x_ND[rows or slice(None)] @ x_ND.T
    square_N = product_RN.diagonal() if rows is None else x_ND.square().sum(dim=1)
    return product_RN, square_N[rows or slice(None), None], square_N


def gram_rows(x_ND: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Products of some rows with all, and the squared lengths of all, without a graph.

    Where all rows are asked for on a CPU, the half of the products above the diagonal is computed and copied.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: Rows of the relation.

    Returns:
        Shapes (R, N), (N,).
    """
    num_samples = len(x_ND)
    if rows != slice(0, num_samples) or x_ND.device.type != 'cpu' or num_samples**2 * x_ND.shape[1] < _STRIPED:
        product_RN, _, square_N = inner_products(x_ND, None if rows == slice(0, num_samples) else rows)
        return product_RN, square_N.clone()
    product_NN = x_ND.new_empty(num_samples, num_samples)
    height = max(-(-num_samples // _STRIPES), _STRIPE)
    for start in range(0, num_samples, height):
        stripe, rest = slice(start, start + height), slice(start + height, None)
        torch.mm(x_ND[stripe], x_ND[start:].T, out=product_NN[stripe, start:])
        product_NN[rest, stripe] = product_NN[stripe, rest].T
    return product_NN, product_NN.diagonal().clone()


def squared_distances(x_ND: Tensor, rows: slice | None = None) -> Tensor:
    """Squared distances of some rows to all, precise also far from the origin.

    For losses of smooth functions of the square; see :func:`pairwise` for those that need the distance itself, or its
    ratios, between points that nearly coincide.

    Args:
        x_ND: Vectors, shape (N, D).
        rows: Rows of the relation; None for all.

    Returns:
        Shape (R, N), >= 0; of a row to itself 0, up to rounding if only some rows are asked for.
    """
    # Distances do not see a shift, so no gradient goes through it; without it the products would drown differences.
    x_ND = x_ND - x_ND.detach().mean(dim=0)
    product_RN, square_R1, square_N = inner_products(x_ND, rows)
    return (square_R1 + square_N - 2 * product_RN).clamp(min=0)


# --------------------------------------------------------------------------------------------------
# Distances within a batch, exact where single precision cannot know them.

# A squared distance under this share of |x|^2 + |y|^2 has lost too many of float32's digits: its error is near 1e-7 of
# that sum, so 1e-5 of the distance at the border.
_UNRESOLVED = 1e-2
# Up to this share float64 cannot tell two points apart either: a relative distance of 6e-8, one digit of float32.
EQUAL = 16 * torch.finfo(torch.float64).eps
# Bounds of the power of two, and the smallest squared distance in that unit: gradients then stay inside float32.
_EXPONENTS = (-60, 1000)
SMALLEST_SQUARE = 1e-30
# Largest squared length of a batch between which float32 needs no unit.
_UNSCALED = (1e-10, 1e10)
# Entries of a matrix that are worked on at a time on a CPU: with their temporaries they stay in its cache.
_PART = 2**17


class Points(NamedTuple):
    """A batch as points in space: features = centre + unit * x.

    Attributes:
        x_ND: Centred coordinates; empty for a teacher, whose gradient nobody asks for.
        square_RN: Squared distances; exactly 0 on the diagonal and for points that coincide, else positive. Empty when
            they are no longer needed.
        unit: Power of two, a scalar tensor.
        rows: Which points the first axis of ``square_RN`` means.
        dtype: Of the features; that of the measurement may be more precise.
        is_resolved: Whether the dtype of the measurement knows all these distances. :func:`pairwise` returns no others.
    """

    x_ND: Tensor
    square_RN: Tensor
    unit: Tensor
    rows: slice
    dtype: torch.dtype
    is_resolved: bool


def pairwise(student: Tensor, teacher: Tensor, rows: slice | None = None) -> tuple[Points, Points]:
    """Measure two batches in one dtype that resolves all their distances.

    Not differentiable: losses with a gradient in closed form use it, see :func:`position_gradient`. Losses of one step
    that compare the same features share the result, see :func:`~mmkd_ext.ops.arguments.sharing`.

    Args:
        student: Shape (N, Ds), float32 or float64.
        teacher: Shape (N, Dt), float32 or float64.
        rows: Points whose distances to all are wanted; None for all.

    Returns:
        Points of the student and of the teacher, both float32 or both float64; not to be written to.
    """
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    bounds = None if rows is None else (rows.start, rows.stop)
    if dtype == torch.float32 and student.device.type == 'cpu' and products_are_exact():
        points = once(_measure, student.detach(), torch.float32, bounds)
        if points.is_resolved:
            other = once(_measure, teacher.detach(), torch.float32, bounds)
            if other.is_resolved:
                return points, other._replace(x_ND=torch.empty(0))
    points, other = (once(_measure, x.detach(), torch.float64, bounds) for x in (student, teacher))
    return points, other._replace(x_ND=torch.empty(0))


def row_parts(x_RN: Tensor) -> list[slice]:
    """Cut the rows of a matrix such that temporaries of a part stay in a CPU's cache; all in one on a GPU."""
    num_rows, num_columns = x_RN.shape
    size = max(_PART // num_columns, 1) if x_RN.device.type == 'cpu' else num_rows
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, max(size, 1))]


def position_gradient(points: Points, slope_RN: Tensor) -> Tensor:
    r"""Carry the gradient from squared distances to the features.

    .. math:: \frac{\partial L}{\partial x} = 2 (\mathrm{diag}(A \mathbf{1}) - A)\, x, \qquad
        A_{ij} = \frac{\partial L}{\partial d_{ij}^2} + \frac{\partial L}{\partial d_{ji}^2}

    Args:
        points: What :func:`pairwise` made of the features.
        slope_RN: Rows of the symmetric :math:`A`, those of ``points.rows``; its diagonal does not matter. Overwritten.

    Returns:
        Gradient in the features, shape (N, D), 0 but in ``points.rows``.
    """
    sum_R = slope_RN.sum(dim=1)
    slope_RN.neg_().diagonal(points.rows.start).add_(sum_R)
    pulled_RD = slope_RN.mul_(2 / points.unit) @ points.x_ND
    if len(pulled_RD) == len(points.x_ND):
        return pulled_RD
    gradient_ND = torch.zeros_like(points.x_ND)
    gradient_ND[points.rows] = pulled_RD
    return gradient_ND


def _measure(x_ND: Tensor, dtype: torch.dtype, bounds: tuple[int, int] | None) -> Points:
    """Measure in this dtype; stop where float32 does not resolve a pair, and float64 has to."""
    rows = slice(*bounds) if bounds else slice(0, len(x_ND))
    given = x_ND.dtype
    x_ND, unit = _centred(x_ND.to(dtype))
    gram_RN, norm_N = gram_rows(x_ND, rows)
    unresolved = Points(torch.empty(0), torch.empty(0), unit, rows, given, is_resolved=False)
    if dtype == torch.float32 and not _UNSCALED[0] < norm_N.amax() < _UNSCALED[1]:
        return unresolved
    for part in row_parts(gram_RN):
        own = slice(rows.start + part.start, rows.start + part.stop)
        norm_P1 = norm_N[own, None]
        square_PN = torch.sub(norm_P1, gram_RN[part], alpha=2, out=gram_RN[part]).add_(norm_N)
        square_PN.diagonal(own.start).fill_(torch.inf)
        if dtype == torch.float64:
            square_PN.masked_fill_(square_PN <= (norm_P1 + norm_N).mul_(EQUAL).clamp_(min=SMALLEST_SQUARE), 0)
        elif not _are_resolved(square_PN, norm_P1, norm_N):
            return unresolved
        square_PN.diagonal(own.start).fill_(0)
    return Points(x_ND, gram_RN, unit, rows, given, is_resolved=True)


def _are_resolved(square_PN: Tensor, norm_P1: Tensor, norm_N: Tensor) -> bool:
    """Whether float32 knows these squared distances; the host waits for the answer."""
    # The closest pair of a row is mostly far enough to pass for a pair with the longest vector, too.
    smallest_P1 = _UNRESOLVED * (norm_P1 + norm_N.amax()) + SMALLEST_SQUARE
    if bool((square_PN.amin(dim=1, keepdim=True) > smallest_P1).all()):
        return True
    return bool((square_PN > (norm_P1 + norm_N).mul_(_UNRESOLVED).clamp_(min=SMALLEST_SQUARE)).all())


def _centred(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Around the mean; float64, the last resort, in units of the power of two over the largest magnitude."""
    if x_ND.dtype == torch.float32:
        return x_ND - x_ND.mean(dim=0), x_ND.new_ones(())
    low, high = torch.aminmax(x_ND)
    exponent = torch.frexp(torch.maximum(-low, high)).exponent.clamp(*_EXPONENTS)
    unit = torch.ldexp(x_ND.new_ones(()), exponent)
    x_ND = x_ND / unit
    return x_ND.sub_(x_ND.mean(dim=0)), unit


# --------------------------------------------------------------------------------------------------
# The sum of RKD's angles over all triangles of samples: in plain torch, in C, and which implementation is taken.

# Cosines are computed in tiles of (vertices, ends, ends): a few fit a CPU core's cache; a GPU wants fewer launches.
_CPU_TILE, _GPU_TILE = (32, 64), (64, 256)
_NO_REDUCTION = 0  # as the operator counts; it writes to given memory, torch.nn.functional.huber_loss does not


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
            target_VIK, cosine_VIK, product_VIK, huber_VIK = (x[: math.prod(shape)].view(shape) for x in memory)
            teacher_arms.cosines(row, column, teacher_tiles[row][column], target_VIK, product_VIK)
            arms.cosines(row, column, student_tiles[row][column], cosine_VIK, product_VIK)
            if slope_NN is not None:
                torch.sub(cosine_VIK, target_VIK, out=huber_VIK).clamp_(-delta, delta)
            loss += 2 * weight * _huber_sum(cosine_VIK, target_VIK, delta)
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


def _huber_sum(cosine_VIK: Tensor, target_VIK: Tensor, delta: float) -> Tensor:
    """Huber loss over ordered pairs, float64; the target's memory is used up."""
    torch.ops.aten.huber_loss.out(cosine_VIK, target_VIK, _NO_REDUCTION, delta, out=target_VIK)
    # A vertex at a time, then in float64: thousands of float32 terms in the order that a BLAS likes are 1e-5 off.
    return target_VIK.flatten(1).sum(dim=1).sum(dtype=torch.float64)


def _slices(whole: slice, size: int) -> list[slice]:
    return [slice(start, min(start + size, whole.stop)) for start in range(whole.start, whole.stop, size)]


def _tiles(x_NN: Tensor | None, size: int) -> list[tuple[Tensor, ...]]:
    return [] if x_NN is None else [stripe.split(size, 1) for stripe in x_NN.split(size)]


def _half_of_pairs(num_tiles: int) -> Iterator[tuple[int, int, float]]:
    """Tiles (row, column) that hold each pair once, with weight 1, or in both orders, with weight 1/2 each."""
    for row in range(num_tiles):
        yield row, row, 0.5
        for column in range(row + 1, num_tiles):
            yield row, column, 1.0


# --------------------------------------------------------------------------------------------------
# On a CPU, by the kernel in C.

_SOURCE = Path(__file__).with_name('angle.c')
_REALS = {torch.float32: ('float', ctypes.c_float), torch.float64: ('double', ctypes.c_double)}
_BLOCK = 16  # as in the source
_VERTICES = 32
# With fewer triangles, threads cost more than they save.
_SERIAL_TRIPLES = 2**24


def angle_sum_c(
    student_NN: Tensor, teacher_NN: Tensor, delta: float, with_slope: bool, vertices: slice
) -> tuple[Tensor, Tensor | None]:
    """Compute :func:`~mmkd_ext.ops.geometry.angle_sum_torch` in one pass, with torch's threads.

    Args:
        student_NN: Squared distances on the CPU.
        teacher_NN: The same of the teacher.
        delta: Where Huber's loss turns from square to linear.
        with_slope: Return the slope, too.
        vertices: Vertices to sum over.

    Returns:
        The same as the torch function.

    Raises:
        OSError: If the kernel cannot be built.
    """
    num_samples = len(student_NN)
    student_NN, teacher_NN = student_NN.contiguous(), teacher_NN.contiguous()
    slope_NN = torch.zeros_like(student_NN)
    stripes = _stripes(num_samples)
    workspaces = student_NN.new_empty(len(stripes), 6 * _VERTICES * num_samples)
    kernel, real = _load(student_NN.dtype), _REALS[student_NN.dtype][1]

    def add(start: int, stop: int, stripe: slice, workspace: Tensor) -> float:
        sizes = map(ctypes.c_size_t, (num_samples, start, stop - start, stripe.start, stripe.stop))
        memory = (ctypes.c_void_p(x.data_ptr()) for x in (student_NN, teacher_NN, slope_NN, workspace))
        return kernel(*sizes, real(delta), *memory)

    loss = 0.0
    with ThreadPoolExecutor(len(stripes)) as pool:
        run = map if len(stripes) == 1 else pool.map
        for start in range(vertices.start, vertices.stop, _VERTICES):
            stop = min(start + _VERTICES, vertices.stop)
            loss += sum(run(functools.partial(add, start, stop), stripes, workspaces))
            in_arms = workspaces[:, : (stop - start) * num_samples].unflatten(1, (-1, num_samples))
            for part_VN in in_arms:
                slope_NN[start:stop] += part_VN
    return torch.tensor(2 * loss, dtype=torch.float64), slope_NN if with_slope else None


@functools.cache
def _load(dtype: torch.dtype) -> Callable[..., float]:
    kernel = ctypes.CDLL(str(build_library(_SOURCE, [f'REAL={_REALS[dtype][0]}']))).angle_sum
    kernel.restype = ctypes.c_double
    return kernel


def _stripes(num_samples: int) -> list[slice]:
    """Rows of each thread; as a row has only the pairs above the diagonal, the last get more."""
    num_threads = 1 if num_samples**3 < _SERIAL_TRIPLES else torch.get_num_threads()
    bounds = [num_samples * (1 - (1 - part / num_threads) ** 0.5) for part in range(num_threads)]
    starts = sorted({int(bound) // _BLOCK * _BLOCK for bound in bounds})
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], num_samples], strict=True)]


# --------------------------------------------------------------------------------------------------
# Which is taken: the fastest that this machine has and the user allows.

AngleSum = Callable[[Tensor, Tensor, float, bool, slice], tuple[Tensor, Tensor | None]]
_VARIABLE = 'MMKD_KERNELS'
# Largest difference from the torch function in the first use, relative to the largest value.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}

logger = logging.getLogger(__name__)


def angle_path(device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """Say how :func:`~mmkd_ext.functional.rkd_angle` is computed, for reports that must not hide a slow path.

    The first call for a device and dtype builds the kernel, which takes seconds once per user, and compares it with the
    plain torch function on a small batch. If it cannot be built or differs, a line in the log says why.

    Args:
        device: Device of the features.
        dtype: Type of the squared distances, float32 or float64.

    Returns:
        ``'c'``, ``'triton'`` or ``'torch'``; always ``'torch'`` with the environment variable ``MMKD_KERNELS=off``.

    Raises:
        ValueError: If ``MMKD_KERNELS`` is set to something else than ``on`` or ``off``.
    """
    wish = os.environ.get(_VARIABLE, 'on')
    if wish not in ('on', 'off'):
        raise ValueError(f'{_VARIABLE}: expected on or off but got {wish!r}; unset it for the fastest kernels')
    path = {'cpu': 'c', 'cuda': 'triton'}.get(torch.device(device).type)
    return path if path and wish == 'on' and _works(path, dtype) else 'torch'


def angle_sum_by(path: str, exact: bool) -> AngleSum:
    """Return an implementation of :func:`~mmkd_ext.ops.geometry.angle_sum_torch`.

    Args:
        path: What :func:`angle_path` returned.
        exact: Whether float64 squared distances call for float64 in all that follows.

    Returns:
        A function with the same arguments.
    """
    if path == 'triton':
        from mmkd_ext.ops.angle_triton import angle_sum_triton

        return functools.partial(angle_sum_triton, exact=exact)
    return {'c': angle_sum_c, 'torch': angle_sum_torch}[path]


@functools.cache
def _works(path: str, dtype: torch.dtype) -> bool:
    try:
        error = _difference(path, dtype)
    except Exception as reason:  # whatever a compiler, a driver or an import has to say
        logger.warning('rkd_angle runs in plain torch, many times slower than its kernel in %s: %s', path, reason)
        return False
    if not error <= _TOLERANCE[dtype]:
        logger.warning('rkd_angle runs in plain torch, as its kernel in %s differs from it by %.0e', path, error)
        return False
    return True


def _difference(path: str, dtype: torch.dtype) -> float:
    """Largest relative difference between kernel and torch, on a small batch with points that coincide."""
    x_ND = torch.randn(2, 37, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_ND[0, 1] = x_ND[0, 0]
    device = {'c': 'cpu', 'triton': 'cuda'}[path]
    student_NN, teacher_NN = ((x - x[:, None]).square().sum(dim=-1).to(device, dtype) for x in x_ND)
    (loss, slope_NN), (expected, expected_NN) = (
        angle_sum(student_NN, teacher_NN, 0.5, True, slice(2, 37))
        for angle_sum in (angle_sum_by(path, True), angle_sum_torch)
    )
    assert slope_NN is not None
    assert expected_NN is not None
    # One of each pair's two places may hold the sum of both.
    gap_NN = slope_NN + slope_NN.T - expected_NN - expected_NN.T
    # A NaN in one is a NaN in the maximum.
    return float(torch.maximum((loss - expected).abs() / expected, gap_NN.abs().max() / expected_NN.abs().max()))
