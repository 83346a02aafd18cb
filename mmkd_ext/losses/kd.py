"""Knowledge distillation by softened predictions as a term of a training."""

import warnings
from typing import Any, ClassVar

from torch import Tensor

from mmkd_ext.functional.kd import soft_target
from mmkd_ext.losses.base import WeightedLoss
from mmkd_ext.ops.arguments import check_positive
from mmkd_ext.registry import MODELS

__all__ = ['KDLoss', 'SoftTargetLoss']


@MODELS.register_module()
class KDLoss(WeightedLoss):
    """:func:`~mmkd_ext.functional.soft_target` times a weight.

    Every sample is compared for itself, so there is nothing to gather from other processes.

    Args:
        loss_weight: Factor of the term.
        temperature: Softens both predictions; the paper tries 1 to 20.
        standardize: Whether the logits of each sample first get mean 0 and standard deviation 1 (CVPR 2024); then 2 is
            the usual temperature, and 9 the usual weight.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If ``temperature`` is not positive or ``loss_weight`` is negative.
    """

    shown: ClassVar[tuple[str, ...]] = ('loss_weight', 'temperature')
    class_axis = 1

    def __init__(self, loss_weight: float = 1.0, *, temperature: float = 4.0, standardize: bool = False) -> None:
        super().__init__(loss_weight, standardize=standardize)
        check_positive(type(self).__name__, temperature=temperature)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Logits, shape (N, C).
            teacher: Logits, shape (N, C).

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes differ.
        """
        return self.loss_weight * soft_target(student, teacher, temperature=self.temperature, **self.settings)


@MODELS.register_module()
class SoftTargetLoss(KDLoss):
    """The first name of :class:`KDLoss`, which took the temperature first; by name, arguments are the same.

    Args:
        *positional: Deprecated: temperature, then loss weight.
        **named: Arguments of :class:`KDLoss`.
    """

    def __init__(self, *positional: float, **named: Any) -> None:
        if positional:
            warnings.warn(
                'SoftTargetLoss: expected arguments by name but got positions, where the temperature comes first; '
                'write temperature=..., loss_weight=..., as KDLoss has the weight first',
                DeprecationWarning,
                stacklevel=2,
            )
        names = ('temperature', 'loss_weight')[: len(positional)]
        given: dict[str, Any] = dict(zip(names, positional, strict=True))
        super().__init__(**given, **named)
