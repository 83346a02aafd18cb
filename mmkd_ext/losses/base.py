"""What the losses have in common: a weight, and the samples of all processes where one asks for them.

====================  =====================================================================================
base                  of losses that
====================  =====================================================================================
WeightedLoss          compare every sample for itself
GatheredLoss          compare samples with each other: those of this process, or those of all (``gather``)
RelationLoss          compare a relation between samples in two networks
LabelledRelationLoss  compare one that also depends on the samples' classes
====================  =====================================================================================
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from mmkd_ext.ops.arguments import check_not_negative
from mmkd_ext.ops.distributed import gather_with_grad, num_processes, own_rows, sum_with_grad


class WeightedLoss(nn.Module):
    """A loss times its weight.

    Args:
        loss_weight: Factor of the term. Every loss takes it first and has a default for it.
        **settings: Settings of the loss by name.

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.

    Attributes:
        settings (dict): The settings by name.
        shown (tuple): Names of further attributes that ``print(module)`` shows, before the settings.
        class_axis (int | None): Axis of the teacher's tensor that counts classes, which have to be in the student's
            order; None for a loss that compares no class with the same class.
    """

    shown: ClassVar[tuple[str, ...]] = ('loss_weight',)
    class_axis: int | None = None

    def __init__(self, loss_weight: float = 1.0, **settings: Any) -> None:
        super().__init__()
        check_not_negative(type(self).__name__, loss_weight=loss_weight)
        self.loss_weight = loss_weight
        self.settings = settings

    def extra_repr(self) -> str:
        """Settings, as ``print(module)`` shows them."""
        settings = {**{name: getattr(self, name) for name in self.shown}, **self.settings}
        return ', '.join(f'{name}={value!r}' for name, value in settings.items())


class GatheredLoss(WeightedLoss):
    """A loss between samples: between those of this process, or on request between those of all processes.

    The rule of ``gather``, for every loss that has it: with True, every process gets the same loss of the joint batch,
    and the mean that ``DistributedDataParallel`` takes of gradients makes the update exactly that of one process with
    the whole batch (:func:`~mmkd_ext.ops.gather_with_grad`). With False, samples of different processes are not
    compared: with 32 samples and more on each that changes little, with few it is another objective.

    The default is False, because the samples of all processes then travel in every step.
    :class:`~mmkd_ext.losses.ClassRelationLoss` alone has True: for it three messages of a few numbers are enough.

    Args:
        loss_weight: Factor of the term.
        gather: Whether the samples of all processes take part.
        **settings: Settings of the loss by name.

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    shown: ClassVar[tuple[str, ...]] = ('loss_weight', 'gather')

    def __init__(self, loss_weight: float = 1.0, *, gather: bool = False, **settings: Any) -> None:
        super().__init__(loss_weight, **settings)
        self.gather = gather

    def joined(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Bring tensors to the device of the first, and with ``gather`` join those of all processes.

        Args:
            *tensors: Each has one row per sample of this process.

        Returns:
            As many, with one row per sample that takes part.
        """
        # What comes from data samples may lie on the CPU, where choosing by it stalls no GPU, but nccl does not go.
        device = tensors[0].device
        tensors = tuple(tensor.to(device, non_blocking=True) for tensor in tensors)
        return tuple(map(gather_with_grad, tensors)) if self.gather else tensors


class RelationLoss(GatheredLoss):
    """A relation between the samples of a batch in two networks, times a weight.

    Subclasses define ``relation``. Arguments and errors are those of :class:`GatheredLoss`.

    Attributes:
        row_sharded (bool): Whether ``relation`` can compute a part of its rows. With ``gather`` each process then
            computes an even part, and the parts are added up; else each computes all of it.
    """

    row_sharded: ClassVar[bool] = False

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted loss of one batch.

        Args:
            student: What the student makes of N samples, shape (N, ...).
            teacher: What the teacher makes of them, shape (N, ...).

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit or a value is NaN.
        """
        student, teacher = self.joined(student, teacher)
        if self.gather and self.row_sharded and num_processes() > 1:
            return self.loss_weight * sum_with_grad(self.relation(student, teacher, rows=own_rows(len(student))))
        return self.loss_weight * self.relation(student, teacher)

    def relation(self, student: Tensor, teacher: Tensor, *args: Any, **extras: Any) -> Tensor:
        """Compare the two networks; what :meth:`forward` weighs.

        Args:
            student: Shape (N, ...).
            teacher: Shape (N, ...).
            *args: None; every extra comes by name.
            **extras: What a class compares by beside the two, such as ``labels``; for one that is ``row_sharded`` also
                ``rows``, the slice of the rows of the relation to compute, None for all. Parts add up.

        Returns:
            Scalar.
        """
        raise NotImplementedError


class LabelledRelationLoss(RelationLoss):
    """A :class:`RelationLoss` that also needs to know the class of each sample: ``labels`` of ``relation``."""

    # A term passes what the forward of its loss names.
    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Compute the weighted loss of one batch.

        Args:
            student: What the student makes of N samples, shape (N, ...).
            teacher: What the teacher makes of them, shape (N, ...).
            labels: Integer labels, shape (N,); samples with a negative label take no part.

        Returns:
            Scalar, float32 or float64.

        Raises:
            ValueError: If shapes do not fit or a value is NaN.
        """
        student, teacher, labels = self.joined(student, teacher, labels)
        return self.loss_weight * self.relation(student, teacher, labels=labels)
