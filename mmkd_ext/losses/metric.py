"""What the losses of metric learning have in common."""

from typing import Any

import torch
from torch import Tensor

from mmkd_ext.functional.mining import check_metric_settings
from mmkd_ext.losses.base import WeightedLoss

__all__ = ['MetricLoss']


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
            (:func:`~mmkd_ext.functional.mining.mine_negatives`).
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
