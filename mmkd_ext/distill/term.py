"""One term of a distillation objective: which two tensors, which loss."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.schedule import WeightSchedule
from mmkd_ext.functional.maps import pool_map, sample_tokens

__all__ = ['Term']

_EXTRAS = ('labels', 'data_samples')


@dataclass
class Term:
    """A loss between a tapped tensor of the student and one of the teacher.

    Attributes:
        name: The loss appears as ``loss_<name>`` among the student's losses.
        student: Tap of the student (:meth:`Tap.parse`).
        teacher: Tap of the teacher.
        loss: Module with ``forward(student, teacher, *, labels=..., data_samples=...) -> scalar``; each of the two
            extras is passed only if the signature names it. ``labels`` stay on the device of the data samples.
        of: Name of the teacher.
        schedule: Factor on the loss over the course of training.
        agreement: Whether both tensors are logits (N, C, ...) of the same classes, so that it can be logged how often
            student and teacher prefer the same one.
        pooling: ``'gap'``: the loss gets the mean of each map (N, C, H, W) over its positions.
        tokens: The loss gets so many random positions of each map as samples, the same ones in both networks and new
            ones in each step (:func:`~mmkd_ext.functional.maps.sample_tokens`). Draws are seeded; a resumed training
            starts the sequence anew.
        extras: Those extras that ``loss`` takes.

    Raises:
        TypeError: ``loss.forward`` cannot be called with what a term supplies.
        ValueError: ``loss`` has trainable parameters, ``name`` contains "loss", or ``pooling`` and ``tokens`` make no
            sense.
    """

    name: str
    student: str
    teacher: str
    loss: nn.Module
    of: str = 'teacher'
    schedule: WeightSchedule = field(default_factory=WeightSchedule)
    agreement: bool = False
    pooling: str | None = None
    tokens: int | None = None
    extras: tuple[str, ...] = field(init=False)
    _generator: torch.Generator | None = field(init=False, default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if 'loss' in self.name:
            # Statistics carry the name of their term, and mmengine adds up whatever has "loss" in its name.
            raise ValueError(f"term {self.name!r}: expected a name without 'loss', which is put in front; rename it")
        self._check_rows()
        signature = inspect.signature(self.loss.forward)
        self.extras = tuple(extra for extra in _EXTRAS if extra in signature.parameters)
        try:
            signature.bind('student', 'teacher', **dict.fromkeys(self.extras))
        except TypeError as error:
            raise TypeError(
                f'term {self.name!r}: expected a loss with forward(student, teacher, *, labels=..., data_samples=...) '
                f'but got {type(self.loss).__name__}.forward{signature}: {error}'
            ) from error
        if self.tokens and self.extras:
            raise TypeError(
                f'term {self.name!r}: expected a loss of features alone for tokens={self.tokens}, whose rows are '
                f'positions, but {type(self.loss).__name__} takes {self.extras}, one a sample; use pooling'
            )
        trainable = [name for name, parameter in self.loss.named_parameters() if parameter.requires_grad]
        if trainable:
            raise ValueError(
                f'term {self.name!r}: expected a loss without trainable parameters but {type(self.loss).__name__} has '
                f'{trainable}, which no optimizer would see; put what is trained into the student'
            )

    def __call__(
        self,
        student_features: Mapping[str, torch.Tensor],
        teacher_features: Mapping[str, torch.Tensor],
        data_samples: Sequence[Any] | None = None,
    ) -> torch.Tensor:
        """Return the scalar loss between the tapped tensors of both models.

        Args:
            student_features: Tensors by tap; this term's must need a gradient.
            teacher_features: Tensors by tap.
            data_samples: The batch's samples; ``labels`` are their ``gt_label`` in one tensor.

        Raises:
            RuntimeError: The student's tensor needs no gradient, the labels are missing, or the loss is no scalar.
        ValueError: The loss refuses the tensors; like a RuntimeError of its own, it names term and shapes.
        """
        student, teacher = student_features[self.student], teacher_features[self.teacher]
        if not student.requires_grad:
            raise RuntimeError(
                f'term {self.name!r}: expected a tensor that needs a gradient at tap {self.student!r} of the student '
                'but it needs none, so the term would train nothing; the tap lies in a frozen layer, or in a block '
                'with reentrant activation checkpointing, which gives no gradient to taps inside and to blocks whose '
                'input needs none: tap a later module, or use use_reentrant=False'
            )
        extras: dict[str, Any] = {}
        if 'labels' in self.extras:
            extras['labels'] = self._labels(data_samples)
        if 'data_samples' in self.extras:
            extras['data_samples'] = data_samples
        loss = self._compute(*self._rows(student, teacher), extras)
        if loss.ndim != 0:
            raise RuntimeError(f'term {self.name!r}: expected a scalar loss but got shape {tuple(loss.shape)}')
        return loss

    def _check_rows(self) -> None:
        if self.pooling not in (None, 'gap'):
            raise ValueError(f"term {self.name!r}: expected pooling='gap' or none but got {self.pooling!r}")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f'term {self.name!r}: expected tokens >= 1 but got {self.tokens}')
        if self.pooling and self.tokens:
            raise ValueError(f'term {self.name!r}: expected pooling or tokens but got both; drop one')

    def _rows(self, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            if self.pooling:
                return pool_map(student), pool_map(teacher)
            if self.tokens:
                if self._generator is None:  # on the device of the maps, so that no step waits for a transfer
                    self._generator = torch.Generator(student.device).manual_seed(0)
                return sample_tokens(student, teacher, self.tokens, self._generator)
        except ValueError as error:
            raise ValueError(f'term {self.name!r}: {error}') from error
        return student, teacher

    def _compute(self, student: torch.Tensor, teacher: torch.Tensor, extras: dict[str, Any]) -> torch.Tensor:
        try:
            return self.loss(student, teacher, **extras)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(
                f'term {self.name!r}: {error} (student {tuple(student.shape)} at {self.student!r}, teacher '
                f'{tuple(teacher.shape)} at {self.teacher!r})'
            ) from error

    def _labels(self, data_samples: Sequence[Any] | None) -> torch.Tensor:
        labels = [getattr(sample, 'gt_label', None) for sample in data_samples or ()]
        if not labels or any(label is None for label in labels):
            raise RuntimeError(
                f'term {self.name!r}: expected data samples with a gt_label each, for the labels that '
                f'{type(self.loss).__name__} takes, but the batch has none; use a loss without labels'
            )
        return torch.cat(labels)
