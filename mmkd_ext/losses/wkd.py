"""Optimal transport between predicted classes (WKD-L) as a term of a training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkd_ext.functional.wkd import check_cost, class_transport
from mmkd_ext.losses.base import WeightedLoss
from mmkd_ext.ops.arguments import check_not_negative, check_positive
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class WKDLoss(WeightedLoss):
    """:func:`~mmkd_ext.functional.class_transport` times a weight.

    Every sample is compared for itself, so there is nothing to gather from other processes.

    Args:
        loss_weight: Factor of the term.
        cost: How unlike the teacher's classes are (:func:`~mmkd_ext.functional.class_costs`): rows of numbers, or a
            file that ``torch.save`` wrote the matrix to. None: all classes equally, the control without relations.
        separate: Whether the class of each sample is taken out, as in the paper; needs labels.
        temperature: Softens both predictions.
        epsilon: Weight of the entropy in the transport.
        num_iters: Pairs of Sinkhorn's scalings.
        target_weight: Factor of the cross-entropy of the target alone, beside the transport; needs ``separate``.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If a setting is out of range, or the cost is not square.
    """

    shown = ('loss_weight', 'separate')
    cost: Tensor | None

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        cost: str | Sequence[Sequence[float]] | None = None,
        separate: bool = True,
        temperature: float = 2.0,
        epsilon: float = 0.05,
        num_iters: int = 10,
        target_weight: float = 0.0,
    ) -> None:
        name = type(self).__name__
        check_positive(name, temperature=temperature, epsilon=epsilon, num_iters=num_iters)
        check_not_negative(name, target_weight=target_weight)
        super().__init__(
            loss_weight, temperature=temperature, epsilon=epsilon, num_iters=num_iters, target_weight=target_weight
        )
        self.separate = separate
        if isinstance(cost, str):
            cost = torch.load(cost, map_location='cpu', weights_only=True)
        matrix = None if cost is None else torch.as_tensor(cost, dtype=torch.float32)
        if matrix is not None:
            check_cost(name, matrix, epsilon=epsilon)
        # Known before training, so it is in no checkpoint.
        self.register_buffer('cost', matrix, persistent=False)

    # A term passes what the forward of its loss names.
    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Logits, shape (N, C).
            teacher: Logits, shape (N, C).
            labels: Class of each sample, shape (N,); of one with a negative label nothing is taken out.

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit, a value is NaN, or labels are missing that ``separate`` needs.
        """
        if self.separate and labels is None:
            raise ValueError(
                'WKDLoss: expected labels, to take out the class of each sample, but got none; set separate=False'
            )
        labels = labels if self.separate else None
        return self.loss_weight * class_transport(student, teacher, cost=self.cost, labels=labels, **self.settings)
