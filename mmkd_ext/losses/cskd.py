"""Category structure (CSKD) as terms of a training."""

from torch import Tensor

from mmkd_ext.functional.checks import check_choice, check_dims
from mmkd_ext.functional.cskd import centre_regulariser, inter_category, intra_category
from mmkd_ext.losses.base import LabelledRelationLoss
from mmkd_ext.registry import MODELS

__all__ = ['CategoryCentreLoss', 'InterCategoryLoss', 'IntraCategoryLoss']


@MODELS.register_module()
class IntraCategoryLoss(LabelledRelationLoss):
    """:func:`~mmkd_ext.functional.intra_category` times a weight.

    Args:
        loss_weight: Factor of the term; 0.002 in the official code, with its own reduction.
        filtered: Centres of correctly classified samples only, each network by its own logits. For terms that tap
            logits: their largest value is compared with the label.
        detach_centre: See the function.
        reduction: See the function.
        gather: Centres over the samples of all processes (:class:`RelationLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        filtered: bool = False,
        detach_centre: bool = False,
        reduction: str = 'sample',
        gather: bool = False,
    ) -> None:
        check_choice('IntraCategoryLoss', ('sample', 'element', 'official'), reduction=reduction)
        super().__init__(loss_weight, gather=gather, detach_centre=detach_centre, reduction=reduction)
        self.filtered = filtered

    def relation(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Compare as the function does."""
        masks = {}
        if self.filtered:
            check_dims('IntraCategoryLoss with filtered centres', 'N C', student=student, teacher=teacher)
            masks = {
                'student_correct': student.argmax(dim=1) == labels,
                'teacher_correct': teacher.argmax(dim=1) == labels,
            }
        return intra_category(student, teacher, labels, **masks, **self.settings)

    def extra_repr(self) -> str:
        """Settings, as ``print(module)`` shows them."""
        return f'{super().extra_repr()}, filtered={self.filtered!r}'


@MODELS.register_module()
class InterCategoryLoss(LabelledRelationLoss):
    """:func:`~mmkd_ext.functional.inter_category` times a weight.

    Args:
        loss_weight: Factor of the term; 0.04 in the official code, with its own reduction.
        reduction: See the function.
        gather: Centres over the samples of all processes (:class:`RelationLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(self, loss_weight: float = 1.0, *, reduction: str = 'mean', gather: bool = False) -> None:
        check_choice('InterCategoryLoss', ('mean', 'official'), reduction=reduction)
        super().__init__(loss_weight, gather=gather, reduction=reduction)

    def relation(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Compare as the function does."""
        return inter_category(student, teacher, labels, **self.settings)


@MODELS.register_module()
class CategoryCentreLoss(LabelledRelationLoss):
    """:func:`~mmkd_ext.functional.centre_regulariser` times a weight: what the official code of CSKD adds.

    The teacher is not looked at; the term taps the student's logits and any tensor of the teacher.

    Args:
        loss_weight: Factor of the term; 0.1 in the official code.
        gather: Centres over the samples of all processes (:class:`RelationLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    def __init__(self, loss_weight: float = 0.1, *, gather: bool = False) -> None:
        super().__init__(loss_weight, gather=gather)

    def relation(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Regularise as the function does."""
        return centre_regulariser(student, labels)
