"""What the losses between samples have in common."""

from typing import Any, ClassVar

from torch import Tensor, nn

from mmkd_ext.ops.checks import check_not_negative
from mmkd_ext.ops.distributed import gather_with_grad, num_processes, own_rows, sum_with_grad

__all__ = ['LabelledRelationLoss', 'RelationLoss', 'WeightedLoss']


class WeightedLoss(nn.Module):
    """Base of losses that have a weight, and that take the samples of all processes on request.

    Args:
        loss_weight: Factor of the term.
        gather: Take the samples of all processes.
        **settings: Settings of the loss by name, for ``print(module)``.

    Raises:
        TypeError: If ``loss_weight`` is not a number.
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    def __init__(self, loss_weight: float = 1.0, *, gather: bool = False, **settings: Any) -> None:
        super().__init__()
        check_not_negative(type(self).__name__, loss_weight=loss_weight)
        self.loss_weight = loss_weight
        self.gather = gather
        self.settings = settings

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

    def extra_repr(self) -> str:
        """Settings, as ``print(module)`` shows them."""
        settings = {'loss_weight': self.loss_weight, 'gather': self.gather, **self.settings}
        return ', '.join(f'{name}={value!r}' for name, value in settings.items())


class RelationLoss(WeightedLoss):
    """A relation between the samples of a batch, times a weight; on request between those of all processes.

    Subclasses define :meth:`relation`.

    With ``gather=True`` every process gets the same loss of the joint batch, and the mean that
    ``DistributedDataParallel`` takes of gradients makes the update exactly that of one process with the whole batch
    (:func:`~mmkd_ext.functional.gather_with_grad`). Where the class is ``row_sharded``, each process computes an even
    part of the rows of the relation and the parts are added up; else each process computes all of it. Without
    ``gather``, relations between samples of different processes are not compared: with 32 samples and more on each that
    changes little, with few it is another objective.

    Arguments and errors are those of :class:`WeightedLoss`.

    Attributes:
        row_sharded: Whether :meth:`relation` takes ``rows``.
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

    def relation(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the two networks; what :meth:`forward` weighs.

        Where the class is ``row_sharded`` there is a third argument, ``rows: slice | None = None``: the part of the
        rows to compare. Parts add up.

        Args:
            student: Shape (N, ...).
            teacher: Shape (N, ...).

        Returns:
            Scalar.
        """
        raise NotImplementedError


class LabelledRelationLoss(RelationLoss):
    """A :class:`RelationLoss` that also needs to know the class of each sample."""

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor) -> Tensor:
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
        return self.loss_weight * self.relation(*self.joined(student, teacher, labels))

    def relation(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Compare the two networks; what :meth:`forward` weighs.

        Args:
            student: Shape (N, ...).
            teacher: Shape (N, ...).
            labels: Shape (N,).

        Returns:
            Scalar.
        """
        raise NotImplementedError
