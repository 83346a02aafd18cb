"""What the losses of metric learning have in common."""

from typing import Any

import torch
from torch import Tensor

from mmkd_ext.functional.metric_learning import check_metric_settings, contrastive_loss, triplet_loss
from mmkd_ext.losses.base import WeightedLoss
from mmkd_ext.registry import MODELS

__all__ = ['ContrastiveLoss', 'MetricLoss', 'TripletLoss']


class MetricLoss(WeightedLoss):
    """A loss of embeddings and labels with mined negatives, times a weight; on request over all processes.

    Subclasses define :meth:`compare`.

    Random minings draw by ``seed`` and :attr:`step`, which is saved with the weights: a resumed training draws what an
    undisturbed one does, and all processes draw alike. With ``gather=True`` every process gets the loss of the joint
    batch, with exactly the gradient of one process (:func:`~mmkd_ext.functional.gather_with_grad`).

    Args:
        loss_weight: Factor of the term.
        margin: The margin m.
        mining: ``'all'``, ``'random'``, ``'hard'``, ``'semi-hard'`` or ``'distance'``
            (:func:`~mmkd_ext.functional.metric_learning.mine_negatives`).
        seed: Seed of random minings.
        gather: Take the samples of all processes.
        **settings: Further settings of the loss by name.

    Raises:
        TypeError: If ``loss_weight`` or ``margin`` is not a number.
        ValueError: If a setting is unknown or out of range.

    Attributes:
        step (Tensor): Number of batches seen in training, int64, ().
    """

    def __init__(
        self, loss_weight: float, *, margin: float, mining: str, seed: int, gather: bool, **settings: Any
    ) -> None:
        super().__init__(loss_weight, gather=gather, margin=margin, mining=mining, seed=seed, **settings)
        check_metric_settings(type(self).__name__, margin, mining)
        self.register_buffer('step', torch.zeros((), dtype=torch.int64))

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Compute the weighted loss of one batch, and count it in training.

        Args:
            embedding: Shape (N, D).
            labels: Integer labels, shape (N,); samples with a negative label take no part.

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit, or on the CPU a value is NaN or infinite.
        """
        loss = self.compare(*self.joined(embedding, labels))
        if self.training:
            self.step += 1
        return self.loss_weight * loss

    def compare(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Compare the samples of a batch; what :meth:`forward` weighs.

        Args:
            embedding: Shape (N, D).
            labels: Shape (N,).

        Returns:
            Scalar.
        """
        raise NotImplementedError


# --------------------------------------------------------------------------------------------------
# The triplet loss as the task of a training.


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


# --------------------------------------------------------------------------------------------------
# The contrastive loss as the task of a training.


@MODELS.register_module()
class ContrastiveLoss(MetricLoss):
    """:func:`~mmkd_ext.functional.contrastive_loss` times a weight, with new random negatives in every step.

    Args:
        loss_weight: Factor of the term.
        margin: As in the function, like the one that follows.
        mining: See there.
        seed: Seed of random minings.
        gather: Form pairs of the samples of all processes (:class:`MetricLoss`).

    Raises:
        TypeError: If ``loss_weight`` or ``margin`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        margin: float = 0.2,
        mining: str = 'distance',
        seed: int = 0,
        gather: bool = False,
    ) -> None:
        super().__init__(loss_weight, margin=margin, mining=mining, seed=seed, gather=gather)

    def compare(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Compare as the function does."""
        return contrastive_loss(embedding, labels, step=self.step, **self.settings)
