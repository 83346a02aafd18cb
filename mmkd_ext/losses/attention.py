"""Attention transfer as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.attention import attention_transfer
from mmkd_ext.losses.base import WeightedLoss
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class AttentionTransferLoss(WeightedLoss):
    """:func:`~mmkd_ext.functional.attention_transfer` times a weight; one term a layer.

    Every image is compared for itself, so there is nothing to gather from other processes.

    Args:
        loss_weight: Factor of the term; 1000 is the beta in common use.

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    def __init__(self, loss_weight: float = 1000.0) -> None:
        super().__init__(loss_weight)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Feature maps, shape (N, C, Y, X).
            teacher: Feature maps of the same images, shape (N, C', Y', X').

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit or a value is NaN.
        """
        return self.loss_weight * attention_transfer(student, teacher)
