"""The triplet loss as the task of a training."""

from torch import Tensor

from mmkd_ext.functional.triplet import triplet_loss
from mmkd_ext.losses.metric import MetricLoss
from mmkd_ext.registry import MODELS

__all__ = ['TripletLoss']


@MODELS.register_module()
class TripletLoss(MetricLoss):
    """:func:`~mmkd_ext.functional.triplet_loss` times a weight, with new random negatives in every step.

    Args:
        loss_weight: Factor of the term.
        margin: As in the function, like the two that follow; 0.2 and ``'distance'`` are the recipe of RKD.
        squared: See there.
        mining: See there.
        seed: Seed of random minings.
        gather: Form triplets of the samples of all processes (:class:`MetricLoss`).

    Raises:
        TypeError: If ``loss_weight`` or ``margin`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        margin: float = 0.2,
        squared: bool = False,
        mining: str = 'distance',
        seed: int = 0,
        gather: bool = False,
    ) -> None:
        super().__init__(loss_weight, margin=margin, mining=mining, seed=seed, gather=gather, squared=squared)

    def compare(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Compare as the function does."""
        return triplet_loss(embedding, labels, step=self.step, **self.settings)
