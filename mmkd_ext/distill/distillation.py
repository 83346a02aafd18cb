"""Adds the terms of a distillation objective to a student's own losses."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.recorder import Recorder
from mmkd_ext.distill.teacher import FrozenTeacher
from mmkd_ext.distill.term import Term

__all__ = ['Distillation']


class Distillation:
    """Two hooks on a student: the first runs the teacher and starts to record, the second adds the losses.

    The student follows the contract ``forward(inputs, data_samples, mode)`` of OpenMMLab models. Only a forward in
    train mode with ``mode='loss'`` is touched. The teacher sees the same call with ``mode='tensor'``, and before the
    student, so that its temporary memory is free again when the student builds its graph.

    An object and not closures: a deep copy or pickle of the student gets a distillation of its own.

    Args:
        student: The model to train, without any wrapper.
        teacher: Taps at least what ``terms`` ask for.
        terms: Their names are unique.

    Raises:
        KeyError: A tap names no module of the student.
        ValueError: A tap is malformed.
    """

    def __init__(self, student: nn.Module, teacher: FrozenTeacher, terms: Sequence[Term]) -> None:
        self.teacher = teacher
        self.terms = terms
        self._teacher_features: dict[str, torch.Tensor] = {}
        self._recorder = Recorder(student, [term.student for term in terms], who='student')
        self._handles = [
            student.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            student.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Take all hooks off the student."""
        self._recorder.remove()
        for handle in self._handles:
            handle.remove()

    @torch.compiler.disable
    def _before_forward(self, student: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        call = _named(args, kwargs)
        if _is_training_step(student, call):
            self._teacher_features = self.teacher.features(**{**call, 'mode': 'tensor'})
            self._recorder.start()

    @torch.compiler.disable
    def _after_forward(
        self, student: nn.Module, args: tuple, kwargs: dict[str, Any], losses: Any
    ) -> dict[str, Any] | None:
        call = _named(args, kwargs)
        if not _is_training_step(student, call):
            return None
        student_features = self._recorder.stop()
        if not isinstance(losses, dict):
            raise RuntimeError(
                f'distillation: expected a dict of losses from the student but got {type(losses).__name__}'
            )
        teacher_features, self._teacher_features = self._teacher_features, {}
        added = {
            f'loss_{term.name}': term(student_features, teacher_features, call.get('data_samples'))
            for term in self.terms
        }
        taken = sorted(added.keys() & losses.keys())
        if taken:
            raise RuntimeError(f'distillation: expected new names but the student already has {taken}; rename the term')
        return {**losses, **added}


def _named(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an OpenMMLab model's forward by name."""
    return {**dict(zip(('inputs', 'data_samples', 'mode'), args, strict=False)), **kwargs}


def _is_training_step(student: nn.Module, call: dict[str, Any]) -> bool:
    return student.training and call.get('mode') == 'loss'
