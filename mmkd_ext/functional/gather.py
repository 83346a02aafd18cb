"""One batch out of the batches of all processes, so that relations reach across them.

Shape suffixes: n samples of this process, N = sum of n over all processes.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import FunctionCtx

__all__ = ['gather_with_grad']


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
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return x
    return _Gather.apply(x, _shares(x))


def _shares(x: Tensor) -> list[int]:
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


class _Gather(torch.autograd.Function):
    """``all_gather`` with the backward that it lacks: sum over processes, then cut out the own share."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, shares: list[int]) -> Tensor:
        ctx.shares = shares
        # The backend moves equal sizes only: fill up to the largest share, and cut what came.
        padded = x.new_zeros(max(shares), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(grad)
        return grad.split(ctx.shares)[distributed.get_rank()], None
