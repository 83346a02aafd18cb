"""Correlations of softened predictions (MLKD) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.mlkd import batch_class_correlation
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.ops.arguments import check_not_negative, check_positive
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class MLKDLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.batch_class_correlation` times a weight; the instance level is a :class:`KDLoss`.

    Args:
        loss_weight: Factor of the term.
        temperature: Softens both predictions; several temperatures are several terms.
        batch_weight: Factor of the correlation between samples.
        class_weight: Factor of the correlation between classes.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        temperature: float = 4.0,
        batch_weight: float = 1.0,
        class_weight: float = 1.0,
        gather: bool = False,
    ) -> None:
        check_positive(type(self).__name__, temperature=temperature)
        check_not_negative(type(self).__name__, batch_weight=batch_weight, class_weight=class_weight)
        super().__init__(
            loss_weight, gather=gather, temperature=temperature, batch_weight=batch_weight, class_weight=class_weight
        )

    def relation(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare as the function does."""
        return batch_class_correlation(student, teacher, **self.settings)
