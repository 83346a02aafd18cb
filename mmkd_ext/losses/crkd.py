"""Class-relation knowledge distillation (Cr-KD) as a term of a training."""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from mmkd_ext.functional.crkd import ClassRelationSettings, class_relation_kd
from mmkd_ext.losses.base import GatheredLoss
from mmkd_ext.ops.arguments import check_dims
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class ClassRelationLoss(GatheredLoss):
    """:func:`~mmkd_ext.functional.class_relation_kd` of the unlabelled rows of a batch, averaged over heads.

    Defaults are those of the official code; the paper's variant is described at the function.

    Rows are selected by a boolean index, whose size the CPU must know: labels on a GPU cost one wait per step. A mask
    carried through the formula would avoid that, at the price of computing the labelled rows for nothing and of a guard
    wherever a mean runs over rows.

    Args:
        loss_weight: Factor of the term: ``alpha`` of the official configs, the paper's beta.
        gather: Whether both means of the loss run over the unlabelled rows of all processes, however these spread.
            False leaves each process its own means, and mmengine their plain average.
        **settings: Fields of :class:`~mmkd_ext.functional.crkd.ClassRelationSettings`: ``temperature``,
            ``kd_temperature``, ``divergence``, ``weight``, ``weight_temperature``, ``detach_weight``,
            ``scale_by_squared_temperature`` and ``weight_mean``.

    Raises:
        TypeError: If a setting has no such name, or a temperature or the loss weight is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    class_axis = 3
    takes_views = True  # of shape (V, H, B, C): the first axis counts no images

    def __init__(self, loss_weight: float = 0.1, *, gather: bool = True, **settings: Any) -> None:
        self_checked = ClassRelationSettings(caller='ClassRelationLoss', **settings)
        super().__init__(loss_weight, gather=gather, **asdict(self_checked))
        self._settings = self_checked

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Cosine logits over all classes, shape (V, H, B, C).
            teacher: Cosine logits over known classes, shape (V, H or 1, B, K).
            labels: Integer labels, shape (B,); negative for unlabelled rows.

        Returns:
            Scalar, float32 or float64; a differentiable 0 for a batch without unlabelled rows.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_dims('ClassRelationLoss', 'V H B C', student=student)
        check_dims('ClassRelationLoss', 'V H B K', teacher=teacher)
        if not labels.shape == student.shape[2:3] == teacher.shape[2:3]:
            raise ValueError(
                f'ClassRelationLoss: expected labels of shape (B,) and as many rows in student and teacher but got '
                f'{tuple(labels.shape)}, {tuple(student.shape)}, {tuple(teacher.shape)}; pass one label per image'
            )
        is_unlabelled_B = labels < 0
        student, teacher = student[:, :, is_unlabelled_B], teacher[:, :, is_unlabelled_B]
        return self.loss_weight * class_relation_kd(student, teacher, self._settings, gather=self.gather).mean()
