"""Similarity-preserving knowledge distillation (SP) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.sp import similarity_preserving
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class SPLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.similarity_preserving` times a weight.

    Args:
        loss_weight: The paper's gamma, 3000 for batches of 128. The loss shrinks as one over the batch: scale the
            weight up with the batch, over all processes if they are gathered.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    row_sharded = True
    published_batch = 3000.0, 128  # weight and rows of a batch that belong together

    def __init__(self, loss_weight: float = 3000.0, *, gather: bool = False) -> None:
        super().__init__(loss_weight, gather=gather)

    def relation(self, student: Tensor, teacher: Tensor, *, rows: slice | None = None) -> Tensor:
        """Compare as the function does."""
        return similarity_preserving(student, teacher, rows=rows)
