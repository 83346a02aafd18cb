"""Adds the terms of a distillation objective to a student's own losses: before training, in a step, for the log.

Shape suffixes: N samples, C classes or channels, D dims.
"""

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_ext.distill.features import FeatureSource, Recorder, call_of
from mmkd_ext.distill.layouts import Batch, LayoutProbe, batch_of
from mmkd_ext.distill.rehearsal import rehearse
from mmkd_ext.distill.report import diagnose, loss_share
from mmkd_ext.distill.term import Term, zero_of
from mmkd_ext.ops.arguments import sharing

__all__ = ['Distillation', 'Stopwatch', 'TeacherCost']


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

    Self-supervised students get a list of views. A teacher that cannot take a list sees, after the student, the very
    images that the student's backbone got, in their order and as one batch; a tap of the student may then fire once for
    each call of the backbone.

    A term whose factor is 0 is not computed, but adds a zero that depends on what the student's taps give: a layer that
    only this term looks at stays in the graph, which DDP and a student without a loss of its own need.

    An object and not closures: a deep copy or pickle of the student gets a distillation of its own.

    Args:
        student: The model to train, without any wrapper.
        teachers: By the name that terms call them; they tap at least what the terms ask for.
        terms: Their names are unique.

    Attributes:
        diagnosing: Whether forwards also return :func:`~mmkd_ext.distill.report.diagnose` of each term.
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
        self._by_image: set[str] = set()
        self._images: _SeenImages | None = None
        self._probes: dict[str, LayoutProbe] | None = None
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
            with self._probing(student):
                losses = rehearse(student, **call)
            for term, rehearsed in zip(before[0], self.terms, strict=True):
                term.take_layouts(rehearsed.layouts)
            return losses
        finally:
            self.terms, self._factors, self.num_steps, self.diagnosing = before
            self._teacher_features = {}

    @property
    def is_doubtful(self) -> bool:
        """Whether more than one axis of a tapped tensor has the size of the first, which should count images."""
        shapes = [shape for pairs in self.shapes.values() for pair in pairs for shape in pair]
        return any(len(shape) > 2 and shape[0] in shape[1:] for shape in shapes)

    def remove(self) -> None:
        """Take all hooks off the student."""
        self._recorder.remove()
        if self._images is not None:
            self._images.remove()
        for handle in self._handles:
            handle.remove()

    @torch.compiler.disable
    def _before_forward(self, student: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        call = call_of(args, **kwargs)
        if not _is_training_step(student, call):
            return
        self._teacher_features = {}
        for name in sorted(self._needed() - self._by_image):
            self._try(name, call)
        if self._by_image:
            self._images = self._images or _SeenImages(student)
            self._images.start()
        self._recorder.start()

    def _try(self, name: str, call: dict[str, Any]) -> None:
        """Run a teacher, or find that it takes no list of views."""
        try:
            self._teacher_features[name] = self._features_of(name, call)
        except (AttributeError, TypeError):
            if isinstance(call['inputs'], Tensor):
                raise
            self._by_image.add(name)

    def _needed(self) -> set[str]:
        return {term.of for term in self.terms if self._factors[term.name]}

    @contextmanager
    def _probing(self, student: nn.Module) -> Iterator[None]:
        """Let terms find out the layouts of what they tap (:meth:`Term.settle`)."""
        taps_S = [tap for term in self.terms for tap, _ in term.pairs]
        frozen: dict[str, Any] = {name: _innermost(teacher) for name, teacher in self.teachers.items()}
        before = {name: getattr(teacher, 'stops_early', False) for name, teacher in frozen.items()}
        with ExitStack() as stack:
            if hasattr(torch.compiler, 'set_stance'):  # a compiled teacher would keep the probe's hooks
                stack.enter_context(torch.compiler.set_stance('force_eager'))
            self._probes = {'': stack.enter_context(LayoutProbe(student, taps_S))}
            for name, teacher in frozen.items():
                taps_T = [tap for term in self.terms if term.of == name for _, tap in term.pairs]
                if hasattr(teacher, 'model'):
                    # What comes after a tap tells its layout.
                    teacher.stops_early = False
                    self._probes[name] = stack.enter_context(LayoutProbe(teacher.model, taps_T))
            try:
                yield
            finally:
                self._probes = None
                for name, teacher in frozen.items():
                    if hasattr(teacher, 'model'):
                        teacher.stops_early = before[name]

    def _settle(self, student_features: Features, call: dict[str, Any]) -> None:
        for term in self.terms:
            if self._probes and term.of in self._probes:
                probes = self._probes[''], self._probes[term.of]
                batches = batch_of(call), self._batch_of_teacher(term.of, call)
                term.settle(student_features, self._teacher_features[term.of], probes, batches)

    def _batch_of_teacher(self, name: str, call: dict[str, Any]) -> Batch:
        batch, size = batch_of(call), getattr(getattr(self.teachers[name], 'adapt', None), 'size', None)
        return replace(batch, image_size=size) if size else batch

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
        student_features = self._recorder.stop(self._see_images(call))
        if self._probes:
            self._settle(student_features, call)
        teacher_features, self._teacher_features = self._teacher_features, {}
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

    def _see_images(self, call: dict[str, Any]) -> int:
        """Run the teachers that see the images one by one; return how often the student's backbone was called."""
        if self._images is None or not self._by_image:
            return 1
        images, num_calls = self._images.stop([tap for term in self.terms for tap in term.student_taps])
        for name in self._needed() & self._by_image:
            self._teacher_features[name] = self._features_of(name, {'inputs': images, 'data_samples': None})
        return num_calls

    def _weighted(
        self, term: Term, student_features: Features, teacher_features: dict[str, Features], call: dict[str, Any]
    ) -> torch.Tensor:
        factor = self._factors[term.name]
        if not factor:
            # Without an entry, the log would go on to show the last value.
            return torch.stack([zero_of(student_features[tap]).float() for tap in term.student_taps]).sum()
        asked: dict[str, Any] = {**self._time}
        if term.rows.needs:  # only a term of positions asks how large the images are
            asked['image_sizes'] = batch_of(call).image_size, self._batch_of_teacher(term.of, call).image_size
        samples = call.get('data_samples')
        value = term(student_features, teacher_features[term.of], samples, **asked)
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


class _SeenImages:
    """Keeps the images that the parts of a student get in one forward.

    Args:
        student: Its children are watched.
    """

    def __init__(self, student: nn.Module) -> None:
        self._seen: list[tuple[str, Tensor]] = []
        self._is_active = False
        self._handles = [
            module.register_forward_pre_hook(partial(self._see, name), with_kwargs=True)
            for name, module in student.named_children()
        ]

    def start(self) -> None:
        """Forget what was seen, and watch."""
        self._seen, self._is_active = [], True

    def stop(self, taps: Iterable[str]) -> tuple[Tensor, int]:
        """Return the images of the first child that got any, of one with a tap if possible, and in how many calls.

        Raises:
            RuntimeError: No child got images.
        """
        seen, self._seen, self._is_active = self._seen, [], False
        tapped = {tap.split('.')[0].split('[')[0].split(':')[0] for tap in taps}
        child = next((name for name, _ in seen if name in tapped), seen[0][0] if seen else None)
        if child is None:
            raise RuntimeError(
                'distillation: expected a student that gives its views to a part of it, such as a backbone, or a '
                'teacher that takes a list of views, but found neither; tap a teacher of the same kind as the student'
            )
        images = [images for name, images in seen if name == child]
        return torch.cat(images), len(images)

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _see(self, name: str, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        given = (*args, *kwargs.values())
        # What needs a gradient is a feature, and no image.
        is_image = given and isinstance(given[0], Tensor) and given[0].ndim >= 4 and not given[0].requires_grad
        if self._is_active and is_image:
            self._seen.append((name, given[0].detach()))


def _innermost(teacher: Any) -> Any:
    """Return the teacher that runs, without a cache or what else is around it."""
    while 'teacher' in vars(teacher):
        teacher = vars(teacher)['teacher']
    return teacher


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
