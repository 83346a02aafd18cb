"""For losses of inner products whose slope is written down: fewer products of matrices, one matrix kept for backward.

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), D dims.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import refuse_second_derivative


class GramSlope(NamedTuple):
    r"""How a loss changes with the inner products of a batch.

    Attributes:
        x_ND: Features as they were multiplied, possibly shifted or in another unit.
        slope_RN: :math:`A`, the gradient in the inner products; divided by that unit, if there is one.
        length_slope_N: The gradient in the squared lengths, where the loss uses them beside the products.
        rows: Rows of the relation; None for all.
        is_symmetric: Whether :math:`A` is; only read where all rows are there.
    """

    x_ND: Tensor
    slope_RN: Tensor
    length_slope_N: Tensor | None = None
    rows: slice | None = None
    is_symmetric: bool = False


def loss_of_gram(caller: str, x: Tensor, loss: Tensor, slope: GramSlope) -> Tensor:
    r"""Give a loss of inner products its gradient, :math:`(A + A^\top) x`: one product where autograd has two.

    Args:
        caller: Function that speaks in the error.
        x: Features, shape (N, ...).
        loss: The loss, a scalar without a graph.
        slope: How it changes.

    Returns:
        The loss, differentiable once in ``x``; a second time, backward raises RuntimeError.
    """
    return _LossOfGram.apply(x, loss, *slope, caller)


class _LossOfGram(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        loss: Tensor,
        x_ND: Tensor,
        slope_RN: Tensor,
        length_slope_N: Tensor | None,
        rows: slice | None,
        is_symmetric: bool,
        caller: str,
    ) -> Tensor:
        ctx.settings = x.shape, rows, is_symmetric, caller
        ctx.save_for_backward(x_ND, slope_RN, length_slope_N)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, rows, is_symmetric, caller = ctx.settings
        refuse_second_derivative(caller)
        x_ND, slope_RN, length_slope_N = ctx.saved_tensors
        gradient_ND = _gradient(x_ND, slope_RN, rows, is_symmetric)
        if length_slope_N is not None:
            gradient_ND.addcmul_(length_slope_N[:, None], x_ND, value=2)
        return gradient_ND.mul_(grad).view(shape), None, None, None, None, None, None, None


def _gradient(x_ND: Tensor, slope_RN: Tensor, rows: slice | None, is_symmetric: bool) -> Tensor:
    if rows is not None:
        gradient_ND = slope_RN.T @ x_ND[rows]
        gradient_ND[rows] += slope_RN @ x_ND
        return gradient_ND
    if is_symmetric:
        return (slope_RN @ x_ND).mul_(2)
    # Copied before it is added: to walk down columns while adding is many times slower.
    return slope_RN.T.clone(memory_format=torch.contiguous_format).add_(slope_RN) @ x_ND
