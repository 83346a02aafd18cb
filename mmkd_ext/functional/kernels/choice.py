"""Which implementation computes a sum: the fastest that this machine has and the user allows."""

import functools
import logging
import os
from collections.abc import Callable

import torch
from torch import Tensor

from mmkd_ext.functional.kernels.angle_c import angle_sum_c
from mmkd_ext.functional.kernels.angle_torch import angle_sum_torch

__all__ = ['angle_path', 'angle_sum_by']

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
    """Return an implementation of :func:`~mmkd_ext.functional.kernels.angle_torch.angle_sum_torch`.

    Args:
        path: What :func:`angle_path` returned.
        exact: Whether float64 squared distances call for float64 in all that follows.

    Returns:
        A function with the same arguments.
    """
    if path == 'triton':
        from mmkd_ext.functional.kernels.angle_triton import angle_sum_triton

        return functools.partial(angle_sum_triton, exact=exact)
    return {'c': angle_sum_c, 'torch': angle_sum_torch}[path]


@functools.cache
def _works(path: str, dtype: torch.dtype) -> bool:
    try:
        error = _difference(path, dtype)
    except Exception as error:  # whatever a compiler, a driver or an import has to say
        logger.warning('rkd_angle runs in plain torch, many times slower than its kernel in %s: %s', path, error)
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
    squares = [(x - x[:, None]).square().sum(dim=-1).to(device, dtype) for x in x_ND]
    (loss, slope_NN), (expected, expected_NN) = (
        angle_sum(*squares, 0.5, True, slice(2, 37)) for angle_sum in (angle_sum_by(path, True), angle_sum_torch)
    )
    # One of each pair's two places may hold the sum of both.
    gap_NN = slope_NN + slope_NN.T - expected_NN - expected_NN.T
    # A NaN in one is a NaN in the maximum.
    return float(torch.maximum((loss - expected).abs() / expected, gap_NN.abs().max() / expected_NN.abs().max()))
