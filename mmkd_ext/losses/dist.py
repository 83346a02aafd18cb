"""Relations between softened predictions (DIST) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.dist import prediction_correlation
from mmkd_ext.losses.base import GatheredLoss
from mmkd_ext.ops.arguments import check_not_negative, check_positive
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class DISTLoss(GatheredLoss):
    """:func:`~mmkd_ext.functional.prediction_correlation` times a weight.

    Args:
        loss_weight: Factor of the term, which takes the place of KD.
        beta: Weight of the relation between the classes of a sample.
        gamma: Weight of the relation between the samples of a class.
        temperature: Softens both predictions.
        multi_label: Whether predictions are a sigmoid of each logit.
        standardize: Whether the logits of each sample first get mean 0 and standard deviation 1.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`); sums travel, no
            samples.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        multi_label: bool = False,
        standardize: bool = False,
        gather: bool = False,
    ) -> None:
        check_positive(type(self).__name__, temperature=temperature)
        check_not_negative(type(self).__name__, beta=beta, gamma=gamma)
        super().__init__(
            loss_weight,
            gather=gather,
            beta=beta,
            gamma=gamma,
            temperature=temperature,
            multi_label=multi_label,
            standardize=standardize,
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Logits, shape (N, C), or of maps (N, C, H, W).
            teacher: Logits of the same shape.

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes differ or a value is NaN.
        """
        return self.loss_weight * prediction_correlation(student, teacher, gather=self.gather, **self.settings)
