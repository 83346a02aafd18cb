"""Relational knowledge distillation (RKD) as terms of a training."""

from torch import Tensor

from mmkd_ext.functional.rkd import check_rkd_settings, rkd_angle, rkd_distance
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class RKDDistanceLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.rkd_distance` times a weight.

    Args:
        loss_weight: 25 for classification beside the task's loss, 1 for metric learning without one, both with the
            official reduction.
        delta: Where Huber's loss turns from square to linear.
        reduction: What the sum is divided by: ``'official'`` all tuples of indices, ``'distinct'`` those of distinct
            samples, ``'sum'`` nothing.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` or ``delta`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    row_sharded = True

    def __init__(
        self, loss_weight: float = 1.0, *, delta: float = 1.0, reduction: str = 'official', gather: bool = False
    ) -> None:
        super().__init__(loss_weight, gather=gather, delta=delta, reduction=reduction)
        check_rkd_settings('RKDDistanceLoss', delta, reduction)

    def relation(self, student: Tensor, teacher: Tensor, *, rows: slice | None = None) -> Tensor:
        """Compare as the function does."""
        return rkd_distance(student, teacher, rows=rows, **self.settings)


@MODELS.register_module()
class RKDAngleLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.rkd_angle` times a weight.

    Args:
        loss_weight: 50 for classification beside the task's loss, 2 for metric learning without one, both with the
            official reduction.
        delta: Where Huber's loss turns from square to linear.
        reduction: What the sum is divided by: ``'official'`` all tuples of indices, ``'distinct'`` those of distinct
            samples, ``'sum'`` nothing.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` or ``delta`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    row_sharded = True

    def __init__(
        self, loss_weight: float = 1.0, *, delta: float = 1.0, reduction: str = 'official', gather: bool = False
    ) -> None:
        super().__init__(loss_weight, gather=gather, delta=delta, reduction=reduction)
        check_rkd_settings('RKDAngleLoss', delta, reduction)

    def relation(self, student: Tensor, teacher: Tensor, *, rows: slice | None = None) -> Tensor:
        """Compare as the function does."""
        return rkd_angle(student, teacher, rows=rows, **self.settings)
