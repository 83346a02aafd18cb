"""Relations between the patches of one image as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.patches import Prefix, check_patch_settings, patch_relation
from mmkd_ext.losses.base import WeightedLoss
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class PatchRelationLoss(WeightedLoss):
    """:func:`~mmkd_ext.functional.patch_relation` times a weight; no connector between networks of different width.

    Every image is compared for itself, so there is nothing to gather from other processes, and two images on each are
    enough.

    Args:
        loss_weight: Factor of the term.
        relation: ``'gram'`` (Gram anchoring), ``'softmax'`` or ``'cka'`` (patch-level kernel alignment).
        temperature: Of ``'softmax'``.
        negatives: What ``'gram'`` does with negative cosines: ``'keep'``, ``'clip'`` or ``'clip-shared'``.
        num_prefix: Tokens before the patches (class token, registers), left out: one number for both networks, or
            (student, teacher).

    Raises:
        TypeError: If ``loss_weight`` or ``temperature`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        relation: str = 'gram',
        temperature: float = 0.07,
        negatives: str = 'keep',
        num_prefix: Prefix = 0,
    ) -> None:
        check_patch_settings(type(self).__name__, relation, temperature, negatives, num_prefix)
        super().__init__(
            loss_weight, relation=relation, temperature=temperature, negatives=negatives, num_prefix=num_prefix
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Tokens, shape (N, P + L, D), or a map (N, D, H, W).
            teacher: Tokens or a map of the same images, of any width and grid.

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit or a value is NaN.
        """
        return self.loss_weight * patch_relation(student, teacher, **self.settings)
