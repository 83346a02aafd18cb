"""Adds the terms of a distillation objective to a student's own losses: before training, in a step, for the log.

Shape suffixes: N samples, C classes or channels, D dims.
"""

import copy
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmkd_ext.distill.features import FeatureSource, Recorder, call_of
from mmkd_ext.distill.term import Term
from mmkd_ext.io import table
from mmkd_ext.ops.arguments import sharing
from mmkd_ext.ops.maps import pool_map
from mmkd_ext.scores.similarity import collapse, linear_cka

__all__ = [
    'Distillation',
    'Stopwatch',
    'TeacherCost',
    'diagnose',
    'loss_share',
    'pair_names',
    'rehearse',
    'same_randomness',
    'term_table',
]


class Stopwatch:
    """Adds up the durations between :meth:`start` and :meth:`stop`, or of ``with`` blocks.

    On a GPU, events are put into the stream and read when the GPU has passed them.

    Args:
        device: Where the work happens.

    Example:
        >>> watch = Stopwatch(torch.device('cpu'))
        >>> with watch:
        ...     _ = torch.ones(2)
        >>> watch.seconds() > 0
        True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._intervals: list[tuple[Any, Any]] = []
        self._start: Any = None

    def start(self) -> None:
        """Begin an interval."""
        self._start = self._now()

    def stop(self) -> None:
        """End the interval."""
        self._intervals.append((self._start, self._now()))

    def __enter__(self) -> 'Stopwatch':
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Stopwatch':
        """Return the stopwatch itself: events of a GPU cannot be copied, and a copied model is not what is timed."""
        return self

    def seconds(self) -> float | None:
        """Return the sum of all durations, or None while the GPU is still busy with the last."""
        if self.device.type != 'cuda':
            return sum(end - start for start, end in self._intervals)
        if not all(end.query() for _, end in self._intervals):
            return None
        return sum(start.elapsed_time(end) for start, end in self._intervals) / 1000

    def _now(self) -> Any:
        if self.device.type != 'cuda':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


# --------------------------------------------------------------------------------------------------
# Adds the terms of a distillation objective to a student's own losses.

Features = dict[str, torch.Tensor]


class Distillation:
    """Two hooks on a student: the first runs the teachers and starts to record, the second adds the losses.

    The student follows the contract ``forward(inputs, data_samples, mode)`` of OpenMMLab models. Only a forward in
    train mode with ``mode='loss'`` is touched. A teacher sees the same call with ``mode='tensor'``, once however many
    terms it has, and before the student, so that its temporary memory is free again when the student builds its graph.

    An object and not closures: a deep copy or pickle of the student gets a distillation of its own.

    Args:
        student: The model to train, without any wrapper.
        teachers: By the name that terms call them; they tap at least what the terms ask for.
        terms: Their names are unique.

    Attributes:
        diagnosing: Whether forwards also return :func:`~mmkd_ext.distill.distillation.diagnose` of each term.
        stopwatches: By teacher, what measures the time of its forwards, if anything does.
        shapes: By term, for each of its pairs of taps, the shapes of student and teacher in the last forward that was
            diagnosed.
        num_steps: Number of forwards that terms were added to.

    Raises:
        KeyError: A tap names no module of the student.
        ValueError: A tap is malformed.
    """

    def __init__(self, student: nn.Module, teachers: Mapping[str, FeatureSource], terms: Sequence[Term]) -> None:
        self.teachers = teachers
        self.terms = terms
        self.diagnosing = False
        self.stopwatches: Mapping[str, Stopwatch] = {}
        self.shapes: dict[str, list[tuple[torch.Size, torch.Size]]] = {}
        self.num_steps = 0
        self._factors = {term.name: 1.0 for term in terms}
        self._time = {'epoch': 0, 'iteration': 0}
        self._teacher_features: dict[str, Features] = {}
        self._recorder = Recorder(student, [tap for term in terms for tap in term.student_taps], caller='student')
        self._handles = [
            student.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            student.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def set_time(self, *, epoch: int, iteration: int) -> None:
        """Weigh the terms as their schedules say (:meth:`WeightSchedule.factor`), and seed what they draw."""
        self._time = {'epoch': epoch, 'iteration': iteration}
        self._factors = {term.name: term.schedule.factor(**self._time) for term in self.terms}

    def rehearse(self, student: nn.Module, **call: Any) -> dict[str, Any]:
        """Compute all terms for one batch without leaving a trace; fills ``shapes``.

        Args:
            student: The model given at construction.
            **call: Arguments of its forward.

        Returns:
            The losses and statistics of this batch.

        Raises:
            RuntimeError: Anything that only a forward reveals: a tap that does not fire or gets no gradient, say.
        """
        before = self.terms, self._factors, self.num_steps, self.diagnosing
        # A term may have a state too, such as a choice of layers, and so may its loss.
        self.terms = copy.deepcopy(self.terms)
        self._factors, self.diagnosing = {term.name: 1.0 for term in self.terms}, True
        try:
            return rehearse(student, **call)
        finally:
            self.terms, self._factors, self.num_steps, self.diagnosing = before
            self._teacher_features = {}

    def remove(self) -> None:
        """Take all hooks off the student."""
        self._recorder.remove()
        for handle in self._handles:
            handle.remove()

    @torch.compiler.disable
    def _before_forward(self, student: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        call = call_of(args, **kwargs)
        if not _is_training_step(student, call):
            return
        needed = {term.of for term in self.terms if self._factors[term.name]}
        self._teacher_features = {name: self._features_of(name, call) for name in self.teachers if name in needed}
        if needed:
            self._recorder.start()

    def _features_of(self, name: str, call: dict[str, Any]) -> Features:
        call = {**call, 'mode': 'tensor'}
        if name not in self.stopwatches:
            return self.teachers[name].features(**call)
        with self.stopwatches[name]:
            return self.teachers[name].features(**call)

    @torch.compiler.disable
    def _after_forward(
        self, student: nn.Module, args: tuple, kwargs: dict[str, Any], losses: Any
    ) -> dict[str, Any] | None:
        call = call_of(args, **kwargs)
        if not _is_training_step(student, call):
            return None
        teacher_features, self._teacher_features = self._teacher_features, {}
        student_features = self._recorder.stop() if teacher_features else {}
        if not isinstance(losses, dict):
            raise RuntimeError(
                f'distillation: expected a dict of losses from the student but got {type(losses).__name__}'
            )
        with sharing():  # terms of one tap measure it once
            added = {
                f'loss_{term.name}': self._weighted(term, student_features, teacher_features, call)
                for term in self.terms
            }
        taken = sorted(added.keys() & losses.keys())
        if taken:
            raise RuntimeError(f'distillation: expected new names but the student already has {taken}; rename the term')
        self.num_steps += 1
        losses = {**losses, **added}
        return {**losses, **self._statistics(student_features, teacher_features, losses, call)}

    def _weighted(
        self, term: Term, student_features: Features, teacher_features: dict[str, Features], call: dict[str, Any]
    ) -> torch.Tensor:
        factor = self._factors[term.name]
        if not factor:
            # Without an entry, the log would go on to show the last value.
            return torch.zeros((), device=_views(call)[0].device)
        value = term(student_features, teacher_features[term.of], call.get('data_samples'), **self._time)
        return value if factor == 1 else factor * value

    def _statistics(
        self,
        student_features: Features,
        teacher_features: dict[str, Features],
        losses: dict[str, Any],
        call: dict[str, Any],
    ) -> dict[str, torch.Tensor]:
        """What is logged of the terms that were computed, if this is a forward to be diagnosed."""
        statistics: dict[str, torch.Tensor] = {}
        if not self.diagnosing:
            return statistics
        num_samples = len(_views(call)[0])
        for term in self.terms:
            if not self._factors[term.name]:
                continue
            of_teacher = teacher_features[term.of]
            self.shapes[term.name] = [(student_features[s].shape, of_teacher[t].shape) for s, t in term.pairs]
            statistics[f'share_{term.name}'] = loss_share(losses[f'loss_{term.name}'], losses)
            statistics |= diagnose(term, student_features, of_teacher, num_samples)
        return statistics


def _is_training_step(student: nn.Module, call: dict[str, Any]) -> bool:
    return student.training and call.get('mode') == 'loss'


def _views(call: dict[str, Any]) -> Sequence[torch.Tensor]:
    """Return the batch as a list of views."""
    inputs = call['inputs']
    return [inputs] if isinstance(inputs, torch.Tensor) else inputs


# --------------------------------------------------------------------------------------------------
# Measures how much of a training step the teachers take.


class TeacherCost:
    """Times some steps and the teachers' forwards within them, once.

    Args:
        distillation: What runs the teachers.
        device: Where they run.
        warm_up: First steps that are left out: memory is allocated and libraries tune themselves.
        num_steps: Steps that are timed.
    """

    def __init__(self, distillation: Distillation, device: torch.device, warm_up: int = 3, num_steps: int = 10) -> None:
        self.warm_up = warm_up
        self.num_steps = num_steps
        self._distillation = distillation
        self._step = Stopwatch(device)
        self._teachers = {name: Stopwatch(device) for name in distillation.teachers}
        self._num_begun = 0
        self._is_told = False

    def before_step(self) -> None:
        """Say that a step begins, its data loaded."""
        self._num_begun += 1
        if self._is_timed:
            self._distillation.stopwatches = self._teachers
            self._step.start()

    def after_step(self) -> str | None:
        """Say that a step has ended.

        Returns:
            One sentence on the cost, once, when all is timed and the GPU has come so far.
        """
        if self._is_timed:
            self._distillation.stopwatches = {}
            self._step.stop()
        if self._is_told or self._num_begun < self.warm_up + self.num_steps:
            return None
        total = self._step.seconds()
        parts = {name: watch.seconds() for name, watch in self._teachers.items()}
        done = {name: part for name, part in parts.items() if part is not None}
        if total is None or len(done) < len(parts):
            return None
        self._is_told = True
        mean_ms = 1000 / self.num_steps
        shares = [f'{name} {part / total:.0%} ({part * mean_ms:.1f} ms)' for name, part in done.items()]
        return (
            f"share of the teachers' forwards in a step of {total * mean_ms:.1f} ms without data loading, mean of "
            f'{self.num_steps} steps: {", ".join(shares)}'
        )

    @property
    def _is_timed(self) -> bool:
        return self.warm_up < self._num_begun <= self.warm_up + self.num_steps


# --------------------------------------------------------------------------------------------------
# Runs a model once without leaving a trace, to find mistakes before training begins.


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Give the random numbers drawn inside back: Python's, NumPy's, and torch's on the CPU and on ``device``."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def rehearse(model: nn.Module, **call: Any) -> Any:
    """Return ``model(**call)``, computed in the model's present mode but on copies of its parameters and buffers.

    Batch statistics, queues and momentum encoders change in the copies only, and attributes that the forward sets are
    set back, so training begins bit-identical to one without the rehearsal. Parameters need gradients as in training,
    which shows taps that get none. A copy of the model itself would not do: activation checkpointing leaves a closure
    in it that still calls the original.

    Args:
        model: It takes up its memory a second time for the duration of the call.
        **call: Arguments of its forward.
    """
    tensors = {
        name: tensor.detach().clone().requires_grad_(tensor.requires_grad)
        for tensors in (model.named_parameters(), model.named_buffers())
        for name, tensor in tensors
    }
    attributes = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        return functional_call(model, tensors, kwargs=call)
    finally:
        for present, before in attributes:
            present.clear()
            present.update(before)


# --------------------------------------------------------------------------------------------------
# What is worth watching about a term while the student learns.


def diagnose(
    term: Term, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor], num_samples: int
) -> dict[str, Tensor]:
    """Compare the tapped tensors of a batch.

    Maps (N, C, H, W) are averaged over their positions first. Where the first axis does not count samples in both
    networks, as in stacked views (V, H, B, C), only ``agree_<term>`` is given. Of a term with several pairs of taps,
    each pair that takes part has numbers of its own, ``cka_<term>_0`` and so on.

    Args:
        term: With ``agreement``, both tensors are logits (N, C, ...) of the same classes.
        student_features: Tensors of the student by tap.
        teacher_features: Tensors of the teacher by tap.
        num_samples: Number of samples in the batch.

    Returns:
        Scalars without gradient. ``cka_<term>``: debiased linear CKA of student and teacher
        (:func:`~mmkd_ext.scores.similarity.linear_cka`), for at least four samples. ``collapse_<term>``: of the
        student (:func:`~mmkd_ext.scores.similarity.collapse`). ``agree_<term>``: share of samples or positions
        where both prefer the same class, with ``agreement``. ``weight_<term>_<pair>``: of several pairs, the share of
        each in the term.

    Raises:
        ValueError: The term has ``agreement`` but the shapes differ.
    """
    statistics: dict[str, Tensor] = {}
    names = pair_names(term.name, len(term.pairs))
    for place in term.active(student_features, teacher_features):
        tap_S, tap_T = term.pairs[place]
        student, teacher = student_features[tap_S], teacher_features[tap_T]
        statistics |= _compare(names[place], student, teacher, num_samples, term.agreement)
    if len(names) > 1:
        weights = torch.as_tensor(term.layer_choice.weights())
        statistics |= {f'weight_{name}': weight for name, weight in zip(names, weights, strict=True)}
    return statistics


def pair_names(name: str, num_pairs: int) -> list[str]:
    """Name the pairs of taps of a term: like the term where there is one, else numbered from 0.

    Args:
        name: Name of the term.
        num_pairs: Number of its pairs.
    """
    return [name] if num_pairs == 1 else [f'{name}_{place}' for place in range(num_pairs)]


def loss_share(loss: Tensor, losses: Mapping[str, Tensor | Sequence[Tensor]]) -> Tensor:
    """Return the share of one loss in the sum of all, as mmengine forms it; 0 where the sum is 0.

    Args:
        loss: Scalar.
        losses: Tensors and lists of tensors; those with "loss" in their name count.
    """
    total = torch.stack([_mean(value) for name, value in losses.items() if 'loss' in name]).sum()
    return torch.where(total == 0, 0.0, loss.detach() / total)


def _compare(name: str, student: Tensor, teacher: Tensor, num_samples: int, agreement: bool) -> dict[str, Tensor]:
    """Return the numbers of one pair of tensors."""
    statistics = {}
    if agreement:
        if student.shape != teacher.shape or student.ndim < 2:
            raise ValueError(
                f'term {name!r}: expected logits (N, C, ...) of the same classes for agreement=True but got '
                f'{tuple(student.shape)} of the student and {tuple(teacher.shape)} of the teacher; drop agreement'
            )
        statistics[f'agree_{name}'] = (student.argmax(1) == teacher.argmax(1)).float().mean()
    rows = min(student.ndim, teacher.ndim) > 1 and len(student) == len(teacher) >= max(num_samples, 2)
    if rows:
        student_ND, teacher_ND = _one_row_each(student.detach()), _one_row_each(teacher)
        statistics[f'collapse_{name}'] = collapse(student_ND)
        if len(student) >= 4:
            statistics[f'cka_{name}'] = linear_cka(student_ND, teacher_ND, debiased=True)
    return statistics


def _mean(value: Tensor | Sequence[Any]) -> Tensor:
    values = [value] if isinstance(value, Tensor) else value
    return torch.stack([item.detach().float().mean() for item in values]).sum()


def _one_row_each(x: Tensor) -> Tensor:
    return pool_map(x) if x.ndim == 4 else x


# --------------------------------------------------------------------------------------------------
# The start-up report: what was connected to what.


def term_table(terms: Sequence[Term], shapes: Mapping[str, Sequence[tuple[torch.Size, torch.Size]]]) -> str:
    """Describe the terms.

    Args:
        terms: The terms.
        shapes: By term, for each of its pairs the shapes of the tapped tensors of student and teacher.

    Returns:
        A table with a header and one line per pair of taps.
    """
    rows = [
        (
            title,
            f'{student} {tuple(shape_S)}',
            f'{term.of}: {teacher} {tuple(shape_T)}',
            f'{type(term.loss).__name__}{term.rows}{_choice(term)}',
            f'{getattr(term.loss, "loss_weight", "-")}',
            str(term.schedule),
        )
        for term in terms
        for title, (student, teacher), (shape_S, shape_T) in zip(
            pair_names(f'loss_{term.name}', len(term.pairs)), term.pairs, shapes[term.name], strict=True
        )
    ]
    return table(('term', 'student', 'teacher', 'loss', 'weight', 'schedule'), rows)


def _choice(term: Term) -> str:
    return f', {term.choice} choice' if len(term.pairs) > 1 else ''
