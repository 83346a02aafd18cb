"""Probabilistic knowledge transfer (PKT) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.pkt import FORMS, probabilistic_transfer
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class PKTLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.probabilistic_transfer` times a weight.

    Args:
        loss_weight: 30000 in RepDistiller's benchmark, for the official form, whose mean over pairs is small.
        form: ``'official'``, the mean over all pairs, or ``'paper'``, the sum over pairs of different samples.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    row_sharded = True

    def __init__(self, loss_weight: float = 30000.0, *, form: str = 'official', gather: bool = False) -> None:
        check_choice(type(self).__name__, FORMS, form=form)
        super().__init__(loss_weight, gather=gather, form=form)

    def relation(self, student: Tensor, teacher: Tensor, *, rows: slice | None = None) -> Tensor:
        """Compare as the function does."""
        return probabilistic_transfer(student, teacher, rows=rows, **self.settings)
