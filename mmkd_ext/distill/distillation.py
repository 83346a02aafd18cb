"""Adds the terms of a distillation objective to a student's own losses."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.diagnostics import diagnose, loss_share
from mmkd_ext.distill.recorder import Recorder
from mmkd_ext.distill.rehearsal import rehearse
from mmkd_ext.distill.stopwatch import Stopwatch
from mmkd_ext.distill.teacher import FrozenTeacher
from mmkd_ext.distill.term import Term
from mmkd_ext.functional.sharing import sharing

__all__ = ['Distillation']

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
        diagnosing: Whether forwards also return :func:`~mmkd_ext.distill.diagnostics.diagnose` of each term.
        stopwatches: By teacher, what measures the time of its forwards, if anything does.
        shapes: By term, for each of its pairs of taps, the shapes of student and teacher in the last forward that was
            diagnosed.
        num_steps: Number of forwards that terms were added to.

    Raises:
        KeyError: A tap names no module of the student.
        ValueError: A tap is malformed.
    """

    def __init__(self, student: nn.Module, teachers: Mapping[str, FrozenTeacher], terms: Sequence[Term]) -> None:
        self.teachers = teachers
        self.terms = terms
        self.diagnosing = False
        self.stopwatches: Mapping[str, Stopwatch] = {}
        self.shapes: dict[str, list[tuple[torch.Size, torch.Size]]] = {}
        self.num_steps = 0
        self._factors = {term.name: 1.0 for term in terms}
        self._time = {'epoch': 0, 'iteration': 0}
        self._teacher_features: dict[str, Features] = {}
        self._recorder = Recorder(student, [tap for term in terms for tap in term.student_taps], who='student')
        self._handles = [
            student.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            student.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def set_time(self, *, epoch: int, iteration: int) -> None:
        """Weigh the terms as their schedules say (:meth:`WeightSchedule.factor`), and seed what they draw."""
        self._time = {'epoch': epoch, 'iteration': iteration}
        self._factors = {term.name: term.schedule.factor(**self._time) for term in self.terms}

    def rehearse(self, student: nn.Module, **call: Any) -> dict[str, Any]:
        """Compute all terms for one batch without leaving a trace; fills :attr:`shapes`.

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
        call = _named(args, kwargs)
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
        call = _named(args, kwargs)
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


def _named(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an OpenMMLab model's forward by name."""
    return {**dict(zip(('inputs', 'data_samples', 'mode'), args, strict=False)), **kwargs}


def _is_training_step(student: nn.Module, call: dict[str, Any]) -> bool:
    return student.training and call.get('mode') == 'loss'


def _views(call: dict[str, Any]) -> Sequence[torch.Tensor]:
    """Return the batch as a list of views."""
    inputs = call['inputs']
    return [inputs] if isinstance(inputs, torch.Tensor) else inputs
