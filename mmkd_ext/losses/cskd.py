"""Category structure (CSKD) as terms of a training."""

from typing import Any, ClassVar

from torch import Tensor

from mmkd_ext.functional.cskd import centre_regulariser, inter_category, intra_category
from mmkd_ext.losses.base import LabelledRelationLoss
from mmkd_ext.ops.arguments import check_choice, check_dims
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class IntraCategoryLoss(LabelledRelationLoss):
    """:func:`~mmkd_ext.functional.intra_category` times a weight.

    Args:
        loss_weight: Factor of the term; 0.002 in the official code, with its own reduction.
        filtered: Centres of correctly classified samples only, as in the official code on features: each network's
            largest logit is compared with the label. A term of features says ``logits='head.fc'``, or
            ``dict(student=..., teacher=...)``; a term that taps logits needs nothing.
        detach_centre: Whether the student's centres are constants; matters with ``filtered`` alone.
        reduction: ``'sample'`` is the mean over samples, ``'element'`` divides it by the dims, ``'official'`` by their
            square.
        gather: Whether centres are over the samples of all processes (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    shown: ClassVar[tuple[str, ...]] = ('loss_weight', 'gather', 'filtered')

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
        self.class_axis = 1 if filtered else None  # the largest logit is compared with the label

    # A term passes what the forward of its loss names.
    def forward(  # type: ignore[override]
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        labels: Tensor,
        student_logits: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: Features or logits of N samples, shape (N, C, ...).
            teacher: Those of the teacher, shape (N, C', ...).
            labels: Integer labels, shape (N,); samples with a negative label take no part.
            student_logits: What the student predicts, shape (N, K); None: ``student``. For ``filtered`` alone.
            teacher_logits: What the teacher predicts, shape (N, K); None: ``teacher``.

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit or a value is NaN.
        """
        if not self.filtered:
            return super().forward(student, teacher, labels=labels)
        logits = {
            'student_logits': student if student_logits is None else student_logits,
            'teacher_logits': teacher if teacher_logits is None else teacher_logits,
        }
        check_dims('IntraCategoryLoss with filtered centres', 'N C', **logits)
        predicted = [x.argmax(dim=1) for x in logits.values()]
        student, teacher, labels, *predicted = self.joined(student, teacher, labels, *predicted)
        correct = {'student_correct': predicted[0] == labels, 'teacher_correct': predicted[1] == labels}
        return self.loss_weight * self.relation(student, teacher, labels=labels, **correct)

    def relation(self, student: Tensor, teacher: Tensor, *, labels: Tensor, **correct: Any) -> Tensor:
        """Compare as the function does."""
        return intra_category(student, teacher, labels, **correct, **self.settings)


@MODELS.register_module()
class InterCategoryLoss(LabelledRelationLoss):
    """:func:`~mmkd_ext.functional.inter_category` times a weight.

    Args:
        loss_weight: Factor of the term; 0.04 in the official code, with its own reduction.
        reduction: ``'mean'`` is the mean over pairs of categories, ``'official'`` divides it by their number.
        gather: Whether centres are over the samples of all processes (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(self, loss_weight: float = 1.0, *, reduction: str = 'mean', gather: bool = False) -> None:
        check_choice('InterCategoryLoss', ('mean', 'official'), reduction=reduction)
        super().__init__(loss_weight, gather=gather, reduction=reduction)

    def relation(self, student: Tensor, teacher: Tensor, *, labels: Tensor) -> Tensor:
        """Compare as the function does."""
        return inter_category(student, teacher, labels, **self.settings)


@MODELS.register_module()
class CategoryCentreLoss(LabelledRelationLoss):
    """:func:`~mmkd_ext.functional.centre_regulariser` times a weight: what the official code of CSKD adds.

    The teacher is not looked at; the term taps the student's logits and any tensor of the teacher.

    Args:
        loss_weight: Factor of the term; 0.1 in the official code.
        gather: Whether centres are over the samples of all processes (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    def __init__(self, loss_weight: float = 0.1, *, gather: bool = False) -> None:
        super().__init__(loss_weight, gather=gather)

    def relation(self, student: Tensor, teacher: Tensor, *, labels: Tensor) -> Tensor:
        """Regularise as the function does."""
        return centre_regulariser(student, labels)
