"""For losses of inner products whose slope is written down: fewer products of matrices, one matrix kept for backward.

Where the products are of directions, cosines, :func:`directions` makes them and backward goes through them too.

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), X any leading
dimensions, D dims.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import refuse_second_derivative

_SHORTEST = 1e-6


class Directions(NamedTuple):
    """Vectors at length 1, and how they came to it.

    Attributes:
        unit_XD: The vectors; one shorter than 1e-6 has no direction and stays as it is.
        divisor_X1: What each was divided by.
        turns_X1: Whether it had a direction.
    """

    unit_XD: Tensor
    divisor_X1: Tensor
    turns_X1: Tensor

    def through(self, gradient_XD: Tensor) -> Tensor:
        """Carry a gradient from the directions to the vectors, in place."""
        along_X1 = torch.linalg.vecdot(gradient_XD, self.unit_XD)[..., None].mul_(self.turns_X1)
        return gradient_XD.addcmul_(along_X1, self.unit_XD, value=-1).div_(self.divisor_X1)


def directions(x_XD: Tensor) -> Directions:
    """Scale every vector to length 1, as :func:`~mmkd_ext.ops.arguments.unit_rows` does, for a closed form.

    Args:
        x_XD: Vectors, shape (..., D), float32 or float64, of any finite length.

    Returns:
        The directions, without a graph.
    """
    divisor_X1, turns_X1 = divisors(x_XD)
    return Directions(x_XD / divisor_X1, divisor_X1, turns_X1)


def divisors(x_XD: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`directions` divides by, and whether there is a direction, without a copy of the vectors.

    Args:
        x_XD: Vectors, shape (..., D), float32 or float64, of any finite length.

    Returns:
        Shapes (..., 1).
    """
    length_X1 = torch.linalg.vector_norm(x_XD, dim=-1, keepdim=True)
    # On other devices the host would have to wait for the answer whether squares have left the dtype.
    can_look = x_XD.device.type == 'cpu' and not torch.compiler.is_compiling()
    if not can_look or bool(length_X1.isinf().any()):
        peak_X1 = torch.linalg.vector_norm(x_XD, ord=torch.inf, dim=-1, keepdim=True).clamp(min=1)
        length_X1 = torch.linalg.vector_norm(x_XD / peak_X1, dim=-1, keepdim=True).mul_(peak_X1)
    turns_X1 = length_X1 > _SHORTEST
    return torch.where(turns_X1, length_X1, 1.0), turns_X1


class GramSlope(NamedTuple):
    r"""How a loss changes with the inner products of a batch.

    Attributes:
        x_ND: Features as they were multiplied, possibly shifted or in another unit.
        slope_RN: :math:`A`, the gradient in the inner products; divided by that unit, if there is one.
        length_slope_N: The gradient in the squared lengths, where the loss uses them beside the products.
        rows: Rows of the relation; None for all.
        is_symmetric: Whether :math:`A` is; only read where all rows are there.
        directions: What ``x_ND`` is the ``unit_XD`` of, where products are of directions; None where they are not.
    """

    x_ND: Tensor
    slope_RN: Tensor
    length_slope_N: Tensor | None = None
    rows: slice | None = None
    is_symmetric: bool = False
    directions: Directions | None = None


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
        turned: Directions | None,
        caller: str,
    ) -> Tensor:
        ctx.settings = x.shape, rows, is_symmetric, caller
        ctx.save_for_backward(x_ND, slope_RN, length_slope_N, *(turned[1:] if turned else ()))
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, rows, is_symmetric, caller = ctx.settings
        refuse_second_derivative(caller)
        x_ND, slope_RN, length_slope_N, *turned = ctx.saved_tensors
        gradient_ND = _gradient(x_ND, slope_RN, rows, is_symmetric)
        if length_slope_N is not None:
            gradient_ND.addcmul_(length_slope_N[:, None], x_ND, value=2)
        if turned:
            gradient_ND = Directions(x_ND, *turned).through(gradient_ND)
        return gradient_ND.mul_(grad).view(shape), None, None, None, None, None, None, None, None


def _gradient(x_ND: Tensor, slope_RN: Tensor, rows: slice | None, is_symmetric: bool) -> Tensor:
    if rows is not None:
        gradient_ND = slope_RN.T @ x_ND[rows]
        gradient_ND[rows] += slope_RN @ x_ND
        return gradient_ND
    if is_symmetric:
        return (slope_RN @ x_ND).mul_(2)
    # Copied before it is added: to walk down columns while adding is many times slower.
    return slope_RN.T.clone(memory_format=torch.contiguous_format).add_(slope_RN) @ x_ND
