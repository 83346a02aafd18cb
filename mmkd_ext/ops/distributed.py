"""One batch out of the batches of all processes: its samples, its sums, and the part of the work that is one's own.

Values are those of the whole batch on every process, and so are gradients under the mean over processes that
``DistributedDataParallel`` takes of the weights' gradients; see :func:`gather_with_grad`. In one process, or without a
process group, everything here leaves its argument as it is.

All processes must call these functions together, in the same order, and run backward together.

Shape suffixes: n samples of this process, N = sum of n over all processes.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def num_processes() -> int:
    """Number of processes that train together; 1 without a process group."""
    is_ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_ready else 1


def gather_with_grad(x: Tensor) -> Tensor:
    r"""Join the samples of all processes, in the order of ranks, and let gradients return to where they came from.

    Every process then computes the same loss :math:`\ell(x_1, \dots, x_W)` of the whole batch. Backward adds up the
    gradients of all :math:`W` copies, so a process receives :math:`W \, \partial \ell / \partial x_r`; the mean over
    processes that ``DistributedDataParallel`` takes of the weights' gradients removes the :math:`W` and adds the
    parts: exactly the gradient that one process with the whole batch would have. No factor in front is needed.

    Shares may be of different size, also empty. Sizes must be known to allocate, so a GPU waits here once per call.

    All processes must call this together, and if the result needs a gradient, run backward together.

    Args:
        x: This process's share, shape (n, ...); the other dimensions are equal on all processes.

    Returns:
        The whole batch, shape (N, ...); ``x`` itself where there is one process.

    Raises:
        ValueError: If the other dimensions differ between processes; raised on all of them.
    """
    return x if num_processes() == 1 else _Gather.apply(x, _sizes(x))


def sum_with_grad(x: Tensor) -> Tensor:
    r"""Add up what every process has a part of, and let gradients return to all parts.

    For a loss :math:`\ell = \sum_r \ell_r` of which each process computes a part: the result is :math:`\ell` on every
    process, and backward gives each part :math:`W` times the gradient of :math:`\ell`, as :func:`gather_with_grad`
    does, so again no factor in front is needed.

    Args:
        x: This process's part, of the same shape and dtype on all processes.

    Returns:
        The sum, the same on all processes; ``x`` itself where there is one process.
    """
    return x if num_processes() == 1 else _Sum.apply(x)


def joint_count(count: int, like: Tensor) -> int | Tensor:
    """Add up a number of samples over all processes, to divide by; no device is waited for.

    Args:
        count: Number on this process, which may differ between processes.
        like: A tensor of the device and dtype to count in.

    Returns:
        The number over all processes, at least 1: a scalar tensor, or an int where there is one process.
    """
    if num_processes() == 1:
        return max(count, 1)
    return sum_with_grad(like.new_full((), count)).clamp(min=1)


def log_share(x: Tensor, dim: int) -> Tensor:
    r"""Logarithm of what this process's samples get in a softmax over the samples of all processes; differentiable.

    A softmax over all samples is the one over those of this process times this share: nothing overflows, and all that
    travels is one number per softmax, :math:`\log \sum e^x` of this process.

    Args:
        x: Scores, floating; all processes have the same shape but for ``dim``, which may be empty.
        dim: The dimension along which the samples lie.

    Returns:
        Numbers <= 0 that broadcast with ``x``; 0 where there is one process.
    """
    if num_processes() == 1:
        return x.new_zeros(())
    # Finite, so that shares are numbers also where no process has a sample.
    log_mass = x.logsumexp(dim, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    log_masses = _Gather.apply(log_mass[None], [1] * num_processes())
    return log_masses.log_softmax(dim=0)[distributed.get_rank()]


def own_rows(num_rows: int) -> slice:
    """Return the rows of a relation over the whole batch that this process computes: an even part, whoever's they are.

    Args:
        num_rows: Rows in all, the same number on all processes.

    Returns:
        A part of ``range(num_rows)``, empty for some if there are fewer rows than processes; parts of all processes
        make up the whole.
    """
    rank = distributed.get_rank() if num_processes() > 1 else 0
    return slice(rank * num_rows // num_processes(), (rank + 1) * num_rows // num_processes())


def _sizes(x: Tensor) -> list[int]:
    """Number of samples on each process."""
    shape = torch.tensor(x.shape, device=x.device)
    shapes = [torch.empty_like(shape) for _ in range(distributed.get_world_size())]
    distributed.all_gather(shapes, shape)
    sizes = torch.stack(shapes).tolist()
    if any(size[1:] != sizes[0][1:] for size in sizes):
        raise ValueError(
            f'gather_with_grad: expected samples of one shape on all processes but got {[tuple(s) for s in sizes]}; '
            f'pool features to one size before they are gathered'
        )
    return [size[0] for size in sizes]


def _all_reduce(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    """``all_gather`` with the backward that it lacks: sum over processes, then cut out the own share."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        # The backend moves equal sizes only: fill up to the largest share, and cut what came.
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_reduce(grad).split(ctx.sizes)[distributed.get_rank()], None


class _Sum(torch.autograd.Function):
    """``all_reduce`` with the backward that it lacks, which is another one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _all_reduce(grad)
