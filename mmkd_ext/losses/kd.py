"""Knowledge distillation by softened predictions as a term of a training."""

from torch import Tensor, nn

from mmkd_ext.functional import soft_target
from mmkd_ext.ops.checks import check_not_negative, check_positive
from mmkd_ext.registry import MODELS

__all__ = ['SoftTargetLoss']


@MODELS.register_module()
class SoftTargetLoss(nn.Module):
    """:func:`~mmkd_ext.functional.soft_target` times a weight.

    Args:
        temperature: Softens both predictions; see the function.
        loss_weight: Factor of the term.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If ``temperature`` is not positive or ``loss_weight`` is negative.
    """

    def __init__(self, temperature: float, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_positive('SoftTargetLoss', temperature=temperature)
        check_not_negative('SoftTargetLoss', loss_weight=loss_weight)
        self.temperature = temperature
        self.loss_weight = loss_weight

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
        return self.loss_weight * soft_target(student, teacher, temperature=self.temperature)

    def extra_repr(self) -> str:
        """Settings, as ``print(module)`` shows them."""
        return f'temperature={self.temperature!r}, loss_weight={self.loss_weight!r}'
