"""Class-relation knowledge distillation (Cr-KD) as a term of a training."""

from torch import Tensor, nn

from mmkd_ext.functional import class_relation_kd
from mmkd_ext.functional.crkd import check_class_relation_settings
from mmkd_ext.ops.checks import check_dims, check_not_negative
from mmkd_ext.registry import MODELS

__all__ = ['ClassRelationLoss']


@MODELS.register_module()
class ClassRelationLoss(nn.Module):
    """:func:`~mmkd_ext.functional.class_relation_kd` of the unlabelled rows of a batch, averaged over heads.

    Defaults are those of the official code; the paper's variant is described at the function.

    Rows are selected by a boolean index, whose size the CPU must know: labels on a GPU cost one wait per step. A mask
    carried through the formula would avoid that, at the price of computing the labelled rows for nothing and of a guard
    wherever a mean runs over rows.

    Several processes compute what one would with all their rows, however unlabelled ones spread, for three messages of
    a few numbers; so this is the default, unlike in losses between samples.

    Args:
        loss_weight: Factor of the term: ``alpha`` of the official configs, the paper's beta.
        temperature: As in the function, like all that follow.
        kd_temperature: See there.
        divergence: See there.
        weight: See there.
        weight_temperature: See there.
        detach_weight: See there.
        scale_by_squared_temperature: See there.
        weight_mean: See there.
        gather: See there. False leaves each process its own means, and mmengine their plain average.

    Raises:
        TypeError: If a temperature or the loss weight is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 0.1,
        *,
        temperature: float = 0.1,
        kd_temperature: float = 4.0,
        divergence: str = 'ce',
        weight: str = 'normalized',
        weight_temperature: float | None = None,
        detach_weight: bool = False,
        scale_by_squared_temperature: bool = True,
        weight_mean: str = 'joint',
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_class_relation_settings(
            'ClassRelationLoss', temperature, kd_temperature, divergence, weight, weight_temperature, weight_mean
        )
        check_not_negative('ClassRelationLoss', loss_weight=loss_weight)
        self.loss_weight = loss_weight
        self.settings = {
            'temperature': temperature,
            'kd_temperature': kd_temperature,
            'divergence': divergence,
            'weight': weight,
            'weight_temperature': weight_temperature,
            'detach_weight': detach_weight,
            'scale_by_squared_temperature': scale_by_squared_temperature,
            'weight_mean': weight_mean,
            'gather': gather,
        }

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
        unlabelled = labels < 0
        loss_H = class_relation_kd(student[:, :, unlabelled], teacher[:, :, unlabelled], **self.settings)
        return self.loss_weight * loss_H.mean()

    def extra_repr(self) -> str:
        """Settings, as ``print(module)`` shows them."""
        settings = {'loss_weight': self.loss_weight, **self.settings}
        return ', '.join(f'{name}={value!r}' for name, value in settings.items())
