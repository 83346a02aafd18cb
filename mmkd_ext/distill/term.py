"""One term of a distillation objective: which tensors, which loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.extras import Extras
from mmkd_ext.distill.layer_choice import LayerChoice, build_layer_choice
from mmkd_ext.distill.rows import Rows
from mmkd_ext.distill.schedule import WeightSchedule

__all__ = ['Term']

Features = Mapping[str, torch.Tensor]


@dataclass
class Term:
    """A loss between tapped tensors of the student and of one teacher.

    Attributes:
        name: The loss appears as ``loss_<name>`` among the student's losses.
        student: Tap of the student (:meth:`Tap.parse`), or several.
        teacher: Tap of the teacher, or as many: the candidates for a pair of layers.
        loss: Module with ``forward(student, teacher, *, ...) -> scalar``. After the star may stand ``labels``,
            ``data_samples``, ``sample_ids``, ``epoch``, ``iteration``, ``student_logits`` and ``teacher_logits``; each
            is passed only if the signature names it (:class:`~mmkd_ext.distill.extras.Extras`).
        of: Name of the teacher.
        schedule: Factor on the loss over the course of training.
        agreement: Whether both tensors are logits (N, C, ...) of the same classes, so that it can be logged how often
            student and teacher prefer the same one.
        rows: What a sample is to the loss.
        choice: How several pairs become one loss: ``'uniform'``, ``'normalized'``, ``'cka'`` or ``'adaptive'``
            (:mod:`mmkd_ext.distill.layer_choice`).
        logits: Taps of the logits of student and teacher, for losses that look at predictions too.
        extras: Those extras that ``loss`` takes.
        pairs: Pairs of taps, built from ``student`` and ``teacher``.
        layer_choice: Built from ``choice``.

    Raises:
        TypeError: ``loss.forward`` cannot be called with what a term supplies.
        ValueError: ``loss`` has trainable parameters, ``name`` contains "loss", or taps and choice do not fit.
    """

    name: str
    student: str | Sequence[str]
    teacher: str | Sequence[str]
    loss: nn.Module
    of: str = 'teacher'
    schedule: WeightSchedule = field(default_factory=WeightSchedule)
    agreement: bool = False
    rows: Rows = field(default_factory=Rows)
    choice: str = 'uniform'
    logits: tuple[str, str] | None = None
    extras: Extras = field(init=False)
    pairs: tuple[tuple[str, str], ...] = field(init=False)
    layer_choice: LayerChoice = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if 'loss' in self.name:
            # Statistics carry the name of their term, and mmengine adds up whatever has "loss" in its name.
            raise ValueError(f"term {self.name!r}: expected a name without 'loss', which is put in front; rename it")
        self.pairs = tuple(zip(_taps(self.student), _taps(self.teacher), strict=True))
        try:
            self.layer_choice = build_layer_choice(self.choice, self.pairs)
            self.extras = Extras.of(self.loss)
        except (TypeError, ValueError) as error:
            raise type(error)(f'term {self.name!r}: {error}') from error
        self._check_extras()
        trainable = [name for name, parameter in self.loss.named_parameters() if parameter.requires_grad]
        if trainable:
            raise ValueError(
                f'term {self.name!r}: expected a loss without trainable parameters but {type(self.loss).__name__} has '
                f'{trainable}, which no optimizer would see; put what is trained into the student'
            )

    @property
    def student_taps(self) -> tuple[str, ...]:
        """All that is tapped of the student."""
        return tuple(student for student, _ in self.pairs) + (self.logits or ())[:1]

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """All that is tapped of the teacher."""
        return tuple(teacher for _, teacher in self.pairs) + (self.logits or ())[1:]

    def __call__(
        self,
        student_features: Features,
        teacher_features: Features,
        data_samples: Sequence[Any] | None = None,
        *,
        epoch: int = 0,
        iteration: int = 0,
    ) -> torch.Tensor:
        """Return the scalar loss between the tapped tensors of both models.

        Args:
            student_features: Tensors by tap; those that are compared must need a gradient.
            teacher_features: Tensors by tap.
            data_samples: The batch's samples.
            epoch: Number of passes over the data that are finished.
            iteration: Number of iterations finished; random draws follow from it.

        Raises:
            RuntimeError: The student's tensor needs no gradient, the batch lacks what the loss takes, or the loss is no
                scalar.
            ValueError: The loss refuses the tensors; like a RuntimeError of its own, it names term and shapes.
        """
        logits = (None, None)
        if self.logits:
            logits = student_features[self.logits[0]], teacher_features[self.logits[1]]
        known = {'epoch': epoch, 'iteration': iteration, 'student_logits': logits[0], 'teacher_logits': logits[1]}
        try:
            extras = self.extras.collect(data_samples, known)
            active = self.layer_choice.active(student_features, teacher_features)
        except (RuntimeError, ValueError) as error:
            raise type(error)(f'term {self.name!r}: {error}') from error
        losses = []
        for place in active:
            tap_S, tap_T = self.pairs[place]
            student, teacher = student_features[tap_S], teacher_features[tap_T]
            self._check_gradient(student, tap_S)
            losses.append(self._compute(student, teacher, (tap_S, tap_T), extras, iteration))
        return losses[0] if len(self.pairs) == 1 else self.layer_choice.combine(torch.stack(losses))

    def _compute(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        taps: tuple[str, str],
        extras: dict[str, Any],
        iteration: int,
    ) -> torch.Tensor:
        """Return the loss of one pair, a mean over positions if they are compared one by one."""
        try:
            losses = [self.loss(*rows, **extras) for rows in self.rows(student, teacher, iteration)]
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(
                f'term {self.name!r}: {error} (student {tuple(student.shape)} at {taps[0]!r}, teacher '
                f'{tuple(teacher.shape)} at {taps[1]!r})'
            ) from error
        if losses[0].ndim != 0:
            raise RuntimeError(f'term {self.name!r}: expected a scalar loss but got shape {tuple(losses[0].shape)}')
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _check_extras(self) -> None:
        who = f'term {self.name!r}'
        takes_logits = {'student_logits', 'teacher_logits'} & set(self.extras.names)
        if self.logits and not takes_logits:
            raise TypeError(
                f'{who}: expected a loss that takes logits but {type(self.loss).__name__} does not; drop logits'
            )
        if not self.logits and takes_logits & set(self.extras.required):
            raise TypeError(
                f'{who}: expected taps of the logits that {type(self.loss).__name__} takes but got none; write '
                "logits='head.fc', or logits=dict(student=..., teacher=...)"
            )
        if not self.rows.tokens:
            return
        try:
            self.extras = self.extras.of_positions()
        except TypeError as error:
            raise TypeError(
                f'{who}: expected a loss of features alone for tokens={self.rows.tokens}, whose rows are positions, '
                f'but {type(self.loss).__name__} {error}; use positions or pooling'
            ) from error

    def _check_gradient(self, student: torch.Tensor, tap: str) -> None:
        if not student.requires_grad:
            raise RuntimeError(
                f'term {self.name!r}: expected a tensor that needs a gradient at tap {tap!r} of the student '
                'but it needs none, so the term would train nothing; the tap lies in a frozen layer, or in a block '
                'with reentrant activation checkpointing, which gives no gradient to taps inside and to blocks whose '
                'input needs none: tap a later module, or use use_reentrant=False'
            )


def _taps(tap: str | Sequence[str]) -> tuple[str, ...]:
    return (tap,) if isinstance(tap, str) else tuple(tap)
