"""One term of a distillation objective: taps, rows that are compared, extras, loss, and its weight over time."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_ext.distill.layer_choice import LayerChoice, build_layer_choice
from mmkd_ext.distill.layouts import Batch, LayoutProbe, check_layout, extents_of, find_layout, labelled_pixels
from mmkd_ext.ops.arguments import labels_of_batch, once
from mmkd_ext.ops.maps import Extents, MapLayout, pool_map, sample_positions, sample_tokens
from mmkd_ext.ops.random import seeded_generator

__all__ = ['Extras', 'Rows', 'Term', 'WeightSchedule', 'zero_of']

_OF_SAMPLES = ('labels', 'data_samples', 'sample_ids', 'student_logits', 'teacher_logits')
"""Those with one row, or item, per sample."""
_NAMES = (*_OF_SAMPLES, 'epoch', 'iteration')
_MISSING = {
    'labels': 'data samples with a gt_label each, for the labels that its loss takes, but the batch has none; use a '
    'loss without labels',
    'data_samples': 'data samples but the batch has none; use a loss without them',
    'sample_ids': 'data samples with a sample_idx each, for the sample_ids that its loss takes, but the batch has '
    "none; add 'sample_idx' to the meta_keys of the last transform, PackInputs(meta_keys=(..., 'sample_idx'))",
}


@dataclass(frozen=True)
class Extras:
    """The extras that the signature of a loss names.

    Attributes:
        required: Those without a default; a batch that lacks one is an error.
        optional: Those with a default, which holds where a batch lacks them.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @classmethod
    def of(cls, loss: nn.Module) -> 'Extras':
        """Read the signature of ``loss.forward``.

        Raises:
            TypeError: It cannot be called with student, teacher and extras.
        """
        signature = inspect.signature(loss.forward)
        named = {name: parameter for name, parameter in signature.parameters.items() if name in _NAMES}
        try:
            signature.bind('student', 'teacher', **named)
        except TypeError as error:
            raise TypeError(
                f'expected a loss with forward(student, teacher, *, ...), after the star any of {_NAMES}, but got '
                f'{type(loss).__name__}.forward{signature}: {error}'
            ) from error
        required = tuple(name for name, parameter in named.items() if parameter.default is parameter.empty)
        return cls(required, tuple(name for name in named if name not in required))

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.required + self.optional

    def of_positions(self) -> 'Extras':
        """Return those for a loss whose rows are positions and not samples.

        Raises:
            TypeError: It requires something of each sample.
        """
        asked = [name for name in self.required if name in _OF_SAMPLES]
        if asked:
            raise TypeError(f'takes {asked}, one a sample')
        return Extras(self.required, tuple(name for name in self.optional if name not in _OF_SAMPLES))

    def collect(self, data_samples: Sequence[Any] | None, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for one batch.

        Args:
            data_samples: The batch's samples. ``labels`` are their ``gt_label`` in one tensor, on their device;
                ``sample_ids`` their ``sample_idx``, int64 on the CPU.
            known: Values of the other extras; None for those that there are not.

        Raises:
            RuntimeError: The batch lacks one that is required.
        """
        values = {**known, 'data_samples': data_samples}
        if 'labels' in self.names:
            values['labels'] = labels_of_batch(data_samples)
        if 'sample_ids' in self.names:
            values['sample_ids'] = _sample_ids(data_samples)
        missing = next((name for name in self.required if values[name] is None), None)
        if missing:
            raise RuntimeError(f'expected {_MISSING[missing]}')
        return {name: values[name] for name in self.names if values[name] is not None}


def _sample_ids(data_samples: Sequence[Any] | None) -> torch.Tensor | None:
    ids = [getattr(sample, 'sample_idx', None) for sample in data_samples or ()]
    return torch.tensor(ids) if ids and None not in ids else None


# --------------------------------------------------------------------------------------------------
# Turns the tapped tensors of both networks into the rows that a relation loss compares.


@dataclass(frozen=True)
class Rows:
    """What a sample is to the loss; by default, whatever is a row of the tensors. At most one is set.

    Random positions follow from the iteration, so a resumed training draws those of an undisturbed one.

    Attributes:
        pooling: ``'gap'``: the mean of each map (N, C, H, W) over its positions.
        tokens: So many random positions of each map are the samples, each image with its own
            (:func:`~mmkd_ext.ops.maps.sample_tokens`).
        positions: The batch is compared at so many random positions, the same in all images, each by itself; the loss
            is the mean over them (:func:`~mmkd_ext.ops.maps.sample_positions`).

    Raises:
        ValueError: A setting makes no sense, or two are set.
    """

    pooling: str | None = None
    tokens: int | None = None
    positions: int | None = None

    def __post_init__(self) -> None:
        if self.pooling not in (None, 'gap'):
            raise ValueError(f"expected pooling='gap' or none but got {self.pooling!r}")
        for name, number in (('tokens', self.tokens), ('positions', self.positions)):
            if number is not None and number < 1:
                raise ValueError(f'expected {name} >= 1 but got {number}')
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise ValueError(f'expected one of pooling, tokens and positions but got {given}; drop all but one')

    @property
    def needs(self) -> str | None:
        """What must be known of a map's layout, ``'mean'`` of its positions, their ``'grid'``, or nothing."""
        return 'mean' if self.pooling else 'grid' if self.tokens or self.positions else None

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        iteration: int,
        *,
        layouts: tuple[MapLayout | None, MapLayout | None] = (None, None),
        extents: Extents | None = None,
        usable: Tensor | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs of tensors whose losses are averaged: one, or one for each position.

        Args:
            student: Tapped tensor.
            teacher: Tapped tensor.
            iteration: Another one draws other positions.
            layouts: What the axes of both are; None: (N, C, H, W), or rows.
            extents: Of a padded batch, whose padding takes no part.
            usable: Which pixels have a label, (N, H, W) bool; others take no part in ``tokens`` and ``positions``.

        Returns:
            None at all where no position suits all images.

        Raises:
            ValueError: A tensor is no map, or the numbers of images differ.
        """
        layout_S, layout_T = layouts
        if self.pooling:
            return [(once(pool_map, student, layout_S, extents), once(pool_map, teacher, layout_T, extents))]
        if self.needs:
            where: dict[str, Any] = {'layouts': layouts, 'extents': extents, 'usable': usable}
            generator = _generator(iteration, student.device)
            if self.tokens:
                return [sample_tokens(student, teacher, self.tokens, generator, **where)]
            batches = sample_positions(student, teacher, self.positions or 1, generator, **where)
            return list(zip(*(batch.unbind() for batch in batches), strict=True))
        if layout_S is not None and layout_S.axes[0] != 'N':
            student = layout_S.images_first(student)
        return [(student, teacher if layout_T is None or layout_T.axes[0] == 'N' else layout_T.images_first(teacher))]

    def __str__(self) -> str:
        """Say it in a few words, as the start-up report shows it."""
        if self.pooling:
            return f' after {self.pooling}'
        if self.tokens:
            return f' of {self.tokens} tokens'
        return f' at {self.positions} positions' if self.positions else ''


def _generator(iteration: int, device: torch.device) -> torch.Generator:
    """Draw on the device of the maps, so that no step waits for a transfer."""
    return seeded_generator(0, iteration, device=device)


# --------------------------------------------------------------------------------------------------
# The weight of a term over the course of training.

_DECAYS = ('linear', 'cosine')


@dataclass(frozen=True)
class WeightSchedule:
    """A factor on the weight of a term: warm-up, decay and stop, all optional; the default is 1 throughout.

    The factor follows from the counters of training alone, so a resumed run goes on with the factor that it would
    have had. Where it is 0 the term is not computed, and a teacher none of whose terms is computed does not run.

    Attributes:
        by_epoch: Times count epochs, from 0, and the factor is constant within one; False: iterations.
        begin: The factor is 0 before this time.
        warmup: Duration of the linear rise from 0 at ``begin`` to 1.
        decay_begin: Time at which the decay begins; by default, when the warm-up ends.
        decay_end: Time at which the decay has reached ``final_factor``, to stay there; None: no decay.
        decay: ``'linear'`` or ``'cosine'`` (half a period).
        final_factor: What the decay ends at.
        stop: The factor is 0 from this time on; None: never.

    Raises:
        ValueError: Times are negative or in the wrong order, or a setting has no effect without another.

    Example:
        >>> schedule = WeightSchedule(warmup=2, decay_begin=4, decay_end=8, final_factor=0.5, stop=9)
        >>> [schedule.factor(epoch=epoch, iteration=0) for epoch in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.0]
    """

    by_epoch: bool = True
    begin: int = 0
    warmup: int = 0
    decay_begin: int | None = None
    decay_end: int | None = None
    decay: str = 'linear'
    final_factor: float = 0.0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.begin < 0 or self.warmup < 0:
            raise ValueError(f'schedule: expected begin and warmup >= 0 but got {self.begin} and {self.warmup}')
        if self.decay not in _DECAYS:
            raise ValueError(f'schedule: expected decay in {_DECAYS} but got {self.decay!r}')
        if not (math.isfinite(self.final_factor) and self.final_factor >= 0):
            raise ValueError(f'schedule: expected final_factor >= 0 but got {self.final_factor}')
        if self.decay_end is None:
            if self.decay_begin is not None or self.final_factor:
                raise ValueError('schedule: expected decay_end, the time when the decay is over, but got none')
        elif self.decay_end <= self._decay_begin:
            raise ValueError(
                f'schedule: expected decay_end after the decay begins at {self._decay_begin} but got {self.decay_end}'
            )
        if self.stop is not None and self.stop <= self.begin:
            raise ValueError(f'schedule: expected stop after begin at {self.begin} but got {self.stop}')

    def factor(self, *, epoch: int, iteration: int) -> float:
        """Return the factor in an iteration.

        Args:
            epoch: Number of epochs finished.
            iteration: Number of iterations finished.

        Returns:
            At least 0.
        """
        time = epoch if self.by_epoch else iteration
        if time < self.begin or (self.stop is not None and time >= self.stop):
            return 0.0
        rise = min((time - self.begin) / self.warmup, 1.0) if self.warmup else 1.0
        return rise * self._decayed(time)

    def __str__(self) -> str:
        """Describe the schedule in one line, as the start-up report shows it."""
        parts = [f'from {self.begin}'] if self.begin else []
        if self.warmup:
            parts.append(f'warm-up {self.warmup}')
        if self.decay_end is not None:
            parts.append(f'{self.decay} to {self.final_factor:g} in {self._decay_begin}..{self.decay_end}')
        if self.stop is not None:
            parts.append(f'stop at {self.stop}')
        return f'{", ".join(parts)} ({"epochs" if self.by_epoch else "iterations"})' if parts else 'constant'

    @property
    def _decay_begin(self) -> int:
        return self.begin + self.warmup if self.decay_begin is None else self.decay_begin

    def _decayed(self, time: int) -> float:
        if self.decay_end is None:
            return 1.0
        progress = (time - self._decay_begin) / (self.decay_end - self._decay_begin)
        progress = min(max(progress, 0.0), 1.0)
        if self.decay == 'cosine':
            progress = (1 - math.cos(math.pi * progress)) / 2
        return 1 - (1 - self.final_factor) * progress


# --------------------------------------------------------------------------------------------------
# One term of a distillation objective: which tensors, which loss.

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
            is passed only if the signature names it (:class:`~mmkd_ext.distill.term.Extras`).
        of: Name of the teacher.
        schedule: Factor on the loss over the course of training.
        agreement: Whether both tensors are logits (N, C, ...) of the same classes, so that it can be logged how often
            student and teacher prefer the same one.
        rows: What a sample is to the loss.
        choice: How several pairs become one loss: ``'uniform'``, ``'normalized'``, ``'cka'`` or ``'adaptive'``
            (:mod:`mmkd_ext.distill.layer_choice`).
        logits: Taps of the logits of student and teacher, for losses that look at predictions too.
        layout: What the axes of the student's and of the teacher's tensors are, where their layers do not tell
            (:func:`~mmkd_ext.distill.layouts.find_layout`); ``'rows'``: the first axis counts what it may.
        prefix_tokens: Class tokens and registers before the tokens of positions, of student and teacher, likewise.
        ignore_index: Pixels with this ground truth of segmentation take no part in ``tokens`` and ``positions``; None:
            all pixels do.
        layouts: By tap of student and of teacher, what is known of their axes (:meth:`settle`).
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
    layout: tuple[str | None, str | None] = (None, None)
    prefix_tokens: tuple[int | None, int | None] = (None, None)
    ignore_index: int | None = 255
    layouts: tuple[dict[str, MapLayout], dict[str, MapLayout]] = field(init=False, repr=False, compare=False)
    extras: Extras = field(init=False)
    pairs: tuple[tuple[str, str], ...] = field(init=False)
    layer_choice: LayerChoice = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if 'loss' in self.name:
            # Statistics carry the name of their term, and mmengine adds up whatever has "loss" in its name.
            raise ValueError(f"term {self.name!r}: expected a name without 'loss', which is put in front; rename it")
        self.pairs = tuple(zip(_taps(self.student), _taps(self.teacher), strict=True))
        self.layouts = {}, {}
        for word, number in zip(self.layout, self.prefix_tokens, strict=True):
            check_layout(f'term {self.name!r}', word, number)
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

    def settle(
        self,
        student_features: Features,
        teacher_features: Features,
        probes: Sequence[LayoutProbe],
        batches: Sequence[Batch],
    ) -> None:
        """Find out what the axes of the tapped tensors are.

        Args:
            student_features: Tensors of one forward, by tap.
            teacher_features: Likewise.
            probes: Of the student's and of the teacher's forward.
            batches: The images that both got.

        Raises:
            ValueError: The first axis does not count images, or what ``rows`` need is not known.
        """
        found: tuple[dict[str, MapLayout], dict[str, MapLayout]] = {}, {}
        counts_images = not getattr(self.loss, 'takes_views', False)
        for side, features in enumerate((student_features, teacher_features)):
            told: dict[str, Any] = {'layout': self.layout[side], 'prefix_tokens': self.prefix_tokens[side]}
            told['needs'] = self.rows.needs
            for tap in dict.fromkeys(pair[side] for pair in self.pairs if counts_images):
                try:
                    layout = find_layout(tap, features[tap], batches[side], probes[side], **told)
                except ValueError as error:
                    raise ValueError(f'term {self.name!r}, {("student", self.of)[side]}: {error}') from error
                if layout is not None:
                    found[side][tap] = layout
        self.take_layouts(found)

    def take_layouts(self, layouts: tuple[dict[str, MapLayout], dict[str, MapLayout]]) -> None:
        """Use what another copy of this term has found out."""
        self.layouts = self.layer_choice.layouts = layouts

    def layout_of(self, side: int, tap: str, image_size: tuple[int, int] | None = None) -> MapLayout | None:
        """Return what the axes of a tap are; ``side`` is 0 for the student, 1 for the teacher."""
        layout = self.layouts[side].get(tap)
        if layout is None and self.layout[side] not in (None, 'rows'):
            layout = MapLayout(str(self.layout[side]), self.prefix_tokens[side] or 0)
        if layout is None or image_size is None or 'L' not in layout.axes:
            return layout
        return replace(layout, image_size=image_size)

    def active(self, student_features: Features, teacher_features: Features) -> Sequence[int]:
        """Return the places of the pairs whose losses are computed (:meth:`LayerChoice.active`)."""
        return (0,) if len(self.pairs) == 1 else self.layer_choice.active(student_features, teacher_features)

    def __call__(
        self,
        student_features: Features,
        teacher_features: Features,
        data_samples: Sequence[Any] | None = None,
        *,
        epoch: int = 0,
        iteration: int = 0,
        image_sizes: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None),
    ) -> torch.Tensor:
        """Return the scalar loss between the tapped tensors of both models.

        Args:
            student_features: Tensors by tap; those that are compared must need a gradient.
            teacher_features: Tensors by tap.
            data_samples: The batch's samples.
            epoch: Number of passes over the data that are finished.
            iteration: Number of iterations finished; random draws follow from it.
            image_sizes: Height and width of what student and teacher got, padding included, where they are known.

        Raises:
            RuntimeError: The student's tensor needs no gradient, the batch lacks what the loss takes, or the loss is no
                scalar.
            ValueError: The loss refuses the tensors; like a RuntimeError of its own, it names term and shapes.
        """
        known: dict[str, Any] = {'epoch': epoch, 'iteration': iteration, 'student_logits': None, 'teacher_logits': None}
        if self.logits:
            known['student_logits'] = student_features[self.logits[0]]
            known['teacher_logits'] = teacher_features[self.logits[1]]
        try:
            extras = self.extras.collect(data_samples, known)
            active = self.active(student_features, teacher_features)
        except (RuntimeError, ValueError) as error:
            raise type(error)(f'term {self.name!r}: {error}') from error
        where: dict[str, Any] = {}
        if self.rows.needs:
            where['extents'] = extents_of(data_samples, image_sizes[0])
            if self.rows.needs == 'grid' and self.ignore_index is not None:
                where['usable'] = labelled_pixels(data_samples, self.ignore_index)
        losses = []
        for place in active:
            tap_S, tap_T = self.pairs[place]
            student, teacher = student_features[tap_S], teacher_features[tap_T]
            self._check_gradient(student, tap_S)
            layouts = self.layout_of(0, tap_S, image_sizes[0]), self.layout_of(1, tap_T, image_sizes[1])
            where['layouts'] = layouts
            losses.append(self._compute(student, teacher, (tap_S, tap_T), extras, iteration, where))
        return losses[0] if len(self.pairs) == 1 else self.layer_choice.combine(torch.stack(losses))

    def _compute(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        taps: tuple[str, str],
        extras: dict[str, Any],
        iteration: int,
        where: dict[str, Any],
    ) -> torch.Tensor:
        """Return the loss of one pair, a mean over positions if they are compared one by one."""
        try:
            losses = [self.loss(*rows, **extras) for rows in self.rows(student, teacher, iteration, **where)]
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(
                f'term {self.name!r}: {error} (student {tuple(student.shape)} at {taps[0]!r}, teacher '
                f'{tuple(teacher.shape)} at {taps[1]!r})'
            ) from error
        if not losses:  # no position of all images
            return zero_of(student)
        if losses[0].ndim != 0:
            raise RuntimeError(f'term {self.name!r}: expected a scalar loss but got shape {tuple(losses[0].shape)}')
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _check_extras(self) -> None:
        caller = f'term {self.name!r}'
        takes_logits = {'student_logits', 'teacher_logits'} & set(self.extras.names)
        if self.logits and not takes_logits:
            raise TypeError(
                f'{caller}: expected a loss that takes logits but {type(self.loss).__name__} does not; drop logits'
            )
        if not self.logits and takes_logits & set(self.extras.required):
            raise TypeError(
                f'{caller}: expected taps of the logits that {type(self.loss).__name__} takes but got none; write '
                "logits='head.fc', or logits=dict(student=..., teacher=...)"
            )
        if not self.rows.tokens:
            return
        try:
            self.extras = self.extras.of_positions()
        except TypeError as error:
            raise TypeError(
                f'{caller}: expected a loss of features alone for tokens={self.rows.tokens}, whose rows are positions, '
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


def zero_of(x: Tensor) -> Tensor:
    """Return a scalar 0 whose gradient for all that ``x`` depends on is 0, whatever values ``x`` has."""
    return x.flatten()[:0].sum()


def _taps(tap: str | Sequence[str]) -> tuple[str, ...]:
    return (tap,) if isinstance(tap, str) else tuple(tap)
