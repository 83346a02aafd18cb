"""Relation distillation as a hook: any student of the Runner, its config otherwise untouched."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmkd_ext.distill import Distillation, FrozenTeacher, Term
from mmkd_ext.models.build import build_model_from_config, load_weights
from mmkd_ext.registry import HOOKS, MODELS

__all__ = ['DistillHook']


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds ``loss_<term>`` between tapped tensors of student and frozen teacher to the student's losses.

    The student's parameters, optimizer, EMA copy, checkpoints and inference are those of a run without the hook.
    The teacher gets the student's preprocessed batch.

    Everything is set up in ``before_train``: ``before_run`` also happens when a model is only tested, which needs no
    teacher, and ``before_train`` comes after weights are loaded, activation checkpointing is switched on and EMA has
    made its copy, but before the compiler sees the first batch.

    Args:
        teacher: ``dict(config=..., checkpoint=...)`` with a config path or ``'<package>::<path>'``, or
            ``dict(model=dict(type=...), checkpoint=...)``. ``checkpoint`` is a file or an http(s) address; None (for
            tests) leaves the teacher as its own ``init_cfg`` makes it.
        terms: By name, ``dict(tap=..., loss=dict(type=...))``, or ``student=`` and ``teacher=`` in place of ``tap=``
            where the names differ. Taps: :meth:`mmkd_ext.distill.Tap.parse`; losses: :class:`mmkd_ext.distill.Term`.

    Raises:
        TypeError: Unknown or missing keys, or a loss that cannot be built or called.

    Example:
        >>> custom_hooks = [dict(
        ...     type='mmkd_ext.DistillHook',
        ...     teacher=dict(config='mmpretrain::resnet/resnet34_8xb16_cifar10.py', checkpoint='resnet34.pth'),
        ...     terms=dict(kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0))))]
    """

    def __init__(self, teacher: Mapping[str, Any], terms: Mapping[str, Mapping[str, Any]]) -> None:
        _check_teacher(teacher)
        if not terms:
            raise ValueError('DistillHook: expected at least one term but got none')
        self.teacher = teacher
        self._terms = [_build_term(name, spec) for name, spec in terms.items()]
        self._distillation: Distillation | None = None

    def before_train(self, runner: Runner) -> None:
        """Build the teacher and hook it to the student.

        Raises:
            FileNotFoundError: The teacher's checkpoint is missing; the message has the command that makes it.
            KeyError: A tap names no module.
            RuntimeError: The checkpoint is of another architecture.
            ValueError: A tap is malformed, the checkpoint is refused or corrupt, or the teacher wants other inputs.
        """
        student = runner.model.module if is_model_wrapper(runner.model) else runner.model
        device = next(student.parameters()).device
        model, loaded = _build_teacher(self.teacher)
        _check_same_normalization(student, model)
        teacher = FrozenTeacher(model, [term.teacher for term in self._terms]).to(device)
        for term in self._terms:
            term.loss.to(device)
        self._distillation = Distillation(student, teacher, self._terms)
        size = sum(parameter.numel() for parameter in model.parameters())
        taps = ', '.join(f'loss_{term.name} ({term.student} <- {term.teacher})' for term in self._terms)
        runner.logger.info(f'DistillHook: {taps}; teacher {type(model).__name__}, {size:,} parameters, {loaded}')

    def after_train(self, runner: Runner) -> None:
        """Leave the student as it was found."""
        self._distillation.remove()
        self._distillation = None


def _check_teacher(teacher: Mapping[str, Any]) -> None:
    if set(teacher) not in ({'config', 'checkpoint'}, {'model', 'checkpoint'}):
        raise TypeError(
            'DistillHook: expected teacher=dict(config=..., checkpoint=...) or dict(model=dict(...), checkpoint=...) '
            f'but got the keys {sorted(teacher)}'
        )


def _build_term(name: str, spec: Mapping[str, Any]) -> Term:
    if set(spec) not in ({'tap', 'loss'}, {'student', 'teacher', 'loss'}):
        raise TypeError(
            f'term {name!r}: expected dict(tap=..., loss=...) or dict(student=..., teacher=..., loss=...) but got the '
            f'keys {sorted(spec)}'
        )
    try:
        loss = MODELS.build(spec['loss'])
    except TypeError as error:
        raise TypeError(f'term {name!r}: {error}') from error
    return Term(name, spec.get('student', spec.get('tap')), spec.get('teacher', spec.get('tap')), loss)


def _build_teacher(spec: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """Return the teacher with its weights, and a sentence on how they came in."""
    checkpoint = spec['checkpoint']
    if checkpoint is not None and '://' not in str(checkpoint) and not Path(checkpoint).expanduser().is_file():
        raise FileNotFoundError(_how_to_train(spec))
    # Initial weights drawn for the teacher must not shift the random numbers of the student's training.
    with torch.random.fork_rng(devices=[]):
        model = build_model_from_config(spec['config']) if 'config' in spec else MODELS.build(spec['model'])
        if checkpoint is None:
            model.init_weights()
            return model, 'without a checkpoint'
    report = load_weights(model, checkpoint, who='teacher')
    unused = f', not used: {", ".join(report.unexpected)}' if report.unexpected else ''
    return model, f'{report.matched} of {report.matched} entries loaded from {checkpoint}{unused}'


def _how_to_train(spec: Mapping[str, Any]) -> str:
    message = f'teacher: expected a checkpoint at {spec["checkpoint"]} but found no file'
    if 'config' not in spec:
        return message
    work_dir = Path(spec['checkpoint']).parent
    command = shlex.join(['python', 'tools/train.py', str(spec['config']), '--work-dir', str(work_dir)])
    return f'{message}; train it with `{command}`, or add --with-teacher to the command of this run'


def _check_same_normalization(student: nn.Module, teacher: nn.Module) -> None:
    """The teacher gets the student's batch, so it must want the same numbers."""
    own, wanted = _normalization(student), _normalization(teacher)
    if wanted is not None and wanted != own:
        raise ValueError(
            f'teacher: expected the normalization of the student, {own or "none"}, but got {wanted}; '
            'use a teacher trained with the same normalization'
        )


def _normalization(model: nn.Module) -> dict[str, Any] | None:
    preprocessor = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, 'mean', None) is None:
        return None
    # mmpretrain and mmengine name the same switch differently.
    swaps_channels = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))
    return {
        'mean': preprocessor.mean.flatten().tolist(),
        'std': preprocessor.std.flatten().tolist(),
        'swaps_channels': bool(swaps_channels),
    }
