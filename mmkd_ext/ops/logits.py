"""What losses of two networks' predictions over the same classes share: rows, standardised logits, closed gradients.

Shape suffixes: M rows (samples, or positions of maps), C classes.
"""

from typing import Any

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_pair, refuse_second_derivative, unit_rows


def check_same_classes(caller: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse what cannot be predictions of two networks for the same samples and classes.

    Args:
        caller: Function that speaks in the error.
        student: Logits, shape (N, C), or of maps (N, C, H, W).
        teacher: Logits of the same shape.

    Raises:
        ValueError: If there are neither two nor four dimensions, shapes differ, or a value is NaN
            (:func:`~mmkd_ext.ops.arguments.check_pair`).
    """
    check_pair(caller, student, teacher)
    if student.ndim not in (2, 4):
        raise ValueError(
            f'{caller}: expected student of shape (N, C) or (N, C, H, W) but got {tuple(student.shape)}; '
            f'tap the layer that predicts classes'
        )
    if student.shape != teacher.shape:
        raise ValueError(
            f'{caller}: expected logits over the same classes but got student {tuple(student.shape)}, '
            f'teacher {tuple(teacher.shape)}; train both networks on the same classes, and resize maps to one size'
        )


def logit_rows(x: Tensor) -> Tensor:
    """Make every position of a map a row, as if it were a sample.

    Args:
        x: Shape (N, C), or (N, C, H, W).

    Returns:
        Shape (M, C): M = N, or N H W, image by image.
    """
    return x if x.ndim == 2 else x.flatten(2).transpose(1, 2).flatten(0, 1)


def standardized(x: Tensor) -> Tensor:
    r"""Give the logits of every sample mean 0 and standard deviation 1 over its classes.

    .. math:: z_c = (x_c - \bar x) / \sigma, \qquad \sigma^2 = \frac{1}{C} \sum_c (x_c - \bar x)^2

    Blind to an offset and a positive factor per sample. From "Logit Standardization in Knowledge Distillation", Sun et
    al., CVPR 2024, arXiv 2403.01427, Algorithm 1. Logits that differ by no more than rounding have no order to
    standardise: they become 0, and their gradient is bounded.

    Args:
        x: Logits, shape (M, C), float32 or float64, of any finite size.

    Returns:
        The same shape.
    """
    if x.shape[1] == 0:
        return x
    # The result does not see the unit, and without one squares of large logits leave float32.
    peak_M1 = x.detach().abs().amax(dim=1, keepdim=True)
    x = x / peak_M1.clamp(min=1)
    x = x - x.mean(dim=1, keepdim=True)
    rounding_M1 = 8 * torch.finfo(x.dtype).eps * peak_M1.clamp(max=1)
    x = torch.where(x.detach().abs().amax(dim=1, keepdim=True) > rounding_M1, x, 0 * x)
    return unit_rows(x) * x.shape[1] ** 0.5


def loss_of_gradient(caller: str, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """Give a loss the gradient that was computed with it, so that backward only multiplies.

    Args:
        caller: Function that speaks in the error.
        x: What the loss is a function of.
        loss: The loss, a scalar without a graph.
        gradient: How it changes with ``x``, of its shape.

    Returns:
        The loss, differentiable once in ``x``; a second time, backward raises RuntimeError.
    """
    return _LossOfGradient.apply(x, loss, gradient, caller)


class _LossOfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor, caller: str) -> Tensor:
        ctx.caller = caller
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative(ctx.caller)
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None, None
