"""The sum of angles on a CPU, by the C kernel beside this file.

Shape suffixes: N samples, V vertices.
"""

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from mmkd_ext.functional.kernels.build import build_library

__all__ = ['angle_sum_c']

_SOURCE = Path(__file__).with_name('angle.c')
_REALS = {torch.float32: ('float', ctypes.c_float), torch.float64: ('double', ctypes.c_double)}
_BLOCK = 16  # as in the source
_VERTICES = 32
# With fewer triangles, threads cost more than they save.
_SERIAL_TRIPLES = 2**24


def angle_sum_c(
    student_NN: Tensor, teacher_NN: Tensor, delta: float, with_slope: bool, vertices: slice
) -> tuple[Tensor, Tensor | None]:
    """Compute :func:`~mmkd_ext.functional.kernels.angle_torch.angle_sum_torch` in one pass, with torch's threads.

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

    def add(start: int, stop: int, rows: slice, workspace: Tensor) -> float:
        sizes = map(ctypes.c_size_t, (num_samples, start, stop - start, rows.start, rows.stop))
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
def _load(dtype: torch.dtype) -> ctypes._CFuncPtr:
    kernel = ctypes.CDLL(str(build_library(_SOURCE, [f'REAL={_REALS[dtype][0]}']))).angle_sum
    kernel.restype = ctypes.c_double
    return kernel


def _stripes(num_samples: int) -> list[slice]:
    """Rows of each thread; as a row has only the pairs above the diagonal, the last get more."""
    num_threads = 1 if num_samples**3 < _SERIAL_TRIPLES else torch.get_num_threads()
    bounds = [num_samples * (1 - (1 - part / num_threads) ** 0.5) for part in range(num_threads)]
    starts = sorted({int(bound) // _BLOCK * _BLOCK for bound in bounds})
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], num_samples], strict=True)]
