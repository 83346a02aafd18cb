"""The losses of metric learning as the task of a training: of triplets and of pairs, with mined negatives."""

from typing import Any

import torch
from torch import Tensor

from mmkd_ext.functional.metric_learning import check_metric_settings, contrastive_loss, triplet_loss
from mmkd_ext.losses.base import GatheredLoss
from mmkd_ext.registry import MODELS


class MetricLoss(GatheredLoss):
    """A loss of embeddings and labels with mined negatives, times a weight; on request over all processes.

    Subclasses define :meth:`compare`.

    Random minings draw by ``seed`` and ``step``, which is saved with the weights: a resumed training draws what an
    undisturbed one does, and all processes draw alike.

    Args:
        loss_weight: Factor of the term.
        margin: The margin m.
        mining: ``'all'``, ``'random'``, ``'hard'``, ``'semi-hard'`` or ``'distance'``
            (:func:`~mmkd_ext.functional.metric_learning.mine_negatives`).
        seed: Seed of random minings.
        gather: Whether the samples of all processes take part (rule: :class:`.GatheredLoss`).
        **settings: Further settings of the loss by name.

    Raises:
        TypeError: If ``loss_weight`` or ``margin`` is not a number.
        ValueError: If a setting is unknown or out of range.

    Attributes:
        step (Tensor): Number of batches seen in training, int64, ().
    """

    step: Tensor

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


@MODELS.register_module()
class TripletLoss(MetricLoss):
    """:func:`~mmkd_ext.functional.triplet_loss` times a weight, with new random negatives in every step.

    Args:
        loss_weight: Factor of the term.
        margin: How much farther than a positive a negative has to be; 0.2 is the recipe of RKD.
        squared: Whether distances are squared.
        mining: How negatives are chosen: ``'all'``, ``'random'``, ``'hard'``, ``'semi-hard'`` or ``'distance'``, the
            recipe of RKD.
        seed: Seed of random minings.
        gather: Whether triplets are formed over all processes (rule: :class:`.GatheredLoss`).

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


@MODELS.register_module()
class ContrastiveLoss(MetricLoss):
    """:func:`~mmkd_ext.functional.contrastive_loss` times a weight, with new random negatives in every step.

    Args:
        loss_weight: Factor of the term.
        margin: Distance that a negative has to keep.
        mining: How negatives are chosen: ``'all'``, ``'random'``, ``'hard'``, ``'semi-hard'`` or ``'distance'``.
        seed: Seed of random minings.
        gather: Whether pairs are formed over all processes (rule: :class:`.GatheredLoss`).

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
