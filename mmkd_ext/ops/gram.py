"""For losses of inner products whose slope is written down: fewer products of matrices, one matrix kept for backward.

Shape suffixes: N samples, R rows of the relation, D dims.
"""

from typing import Any

import torch
from torch import Tensor

from mmkd_ext.ops.checks import refuse_second_derivative

__all__ = ['loss_of_gram']


def loss_of_gram(
    caller: str,
    x: Tensor,
    x_ND: Tensor,
    loss: Tensor,
    slope_RN: Tensor,
    *,
    length_slope_N: Tensor | None = None,
    rows: slice | None = None,
    symmetric: bool = False,
) -> Tensor:
    r"""Give a loss of inner products its gradient, :math:`(A + A^\top) x`: one product where autograd has two.

    Args:
        caller: Function that speaks in the error.
        x: Features, shape (N, ...).
        x_ND: The same as they were multiplied, (N, D), possibly shifted or in another unit.
        loss: The loss, a scalar without a graph.
        slope_RN: :math:`A`, its gradient in the inner products, (R, N); divided by that unit, if there is one.
        length_slope_N: Its gradient in the squared lengths, (N,), where it uses them beside the products.
        rows: The rows; None for all.
        symmetric: Whether :math:`A` is; only read where all rows are there.

    Returns:
        The loss, differentiable once in ``x``; a second time, backward raises RuntimeError.
    """
    return _LossOfGram.apply(x, x_ND, loss, slope_RN, length_slope_N, rows, symmetric, caller)


class _LossOfGram(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        x_ND: Tensor,
        loss: Tensor,
        slope_RN: Tensor,
        length_slope_N: Tensor | None,
        rows: slice | None,
        symmetric: bool,
        caller: str,
    ) -> Tensor:
        ctx.settings = x.shape, rows, symmetric, caller
        ctx.save_for_backward(x_ND, slope_RN, length_slope_N)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, rows, symmetric, caller = ctx.settings
        refuse_second_derivative(caller)
        x_ND, slope_RN, length_slope_N = ctx.saved_tensors
        gradient_ND = _gradient(x_ND, slope_RN, rows, symmetric)
        if length_slope_N is not None:
            gradient_ND.addcmul_(length_slope_N[:, None], x_ND, value=2)
        return gradient_ND.mul_(grad).view(shape), None, None, None, None, None, None, None


def _gradient(x_ND: Tensor, slope_RN: Tensor, rows: slice | None, symmetric: bool) -> Tensor:
    if rows is not None:
        gradient_ND = slope_RN.T @ x_ND[rows]
        gradient_ND[rows] += slope_RN @ x_ND
        return gradient_ND
    if symmetric:
        return (slope_RN @ x_ND).mul_(2)
    # Copied before it is added: to walk down columns while adding is many times slower.
    return slope_RN.T.clone(memory_format=torch.contiguous_format).add_(slope_RN) @ x_ND
