"""Direction of the difference between similarities of samples (SKD) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.skd import similarity_direction
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.ops.arguments import check_positive
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class SKDLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.similarity_direction` times a weight.

    Args:
        loss_weight: Factor of the term; 0.45 amounts to the public code's, which multiplies 0.9 by a mask of a half.
        tikhonov: Keeps the inverse of the covariance finite.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If a setting is out of range.
    """

    def __init__(self, loss_weight: float = 0.45, *, tikhonov: float = 0.1, gather: bool = False) -> None:
        check_positive(type(self).__name__, tikhonov=tikhonov)
        super().__init__(loss_weight, gather=gather, tikhonov=tikhonov)

    def relation(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare as the function does."""
        return similarity_direction(student, teacher, **self.settings)
