"""Distillation as a hook: any student of the Runner, its config otherwise untouched."""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmkd_ext.distill import (
    CachedTeacher,
    Distillation,
    FrozenTeacher,
    Rows,
    TeacherCost,
    Term,
    WeightSchedule,
    same_randomness,
)
from mmkd_ext.distill.classes import ClassesByName, class_taps, columns_of
from mmkd_ext.distill.features import FeatureSource, call_of
from mmkd_ext.distill.rehearsal import same_state
from mmkd_ext.distill.report import term_table
from mmkd_ext.engine.runner import student_of
from mmkd_ext.engine.teacher_features import build_cached_teacher
from mmkd_ext.io import table
from mmkd_ext.models.teacher import Teacher, build_teacher, check_teacher_spec
from mmkd_ext.models.weights import classes_in
from mmkd_ext.ops.arguments import near_misses
from mmkd_ext.registry import HOOKS, MODELS

__all__ = ['TERM_STATES', 'DistillHook', 'build_term']

# --------------------------------------------------------------------------------------------------
# Terms, as a config describes them.

_TAPS = ({'tap'}, {'student', 'teacher'}, {'pairs'}, {'pairs', 'choice'})
_ROWS = ('pooling', 'tokens', 'positions')
_BY_SIDE = ('layout', 'prefix_tokens')
_OPTIONS = ('of', 'schedule', 'agreement', 'logits', 'ignore_index', *_BY_SIDE, *_ROWS)


def build_term(name: str, spec: Mapping[str, Any], teachers: Collection[str]) -> Term:
    """Build one term.

    Args:
        name: Its name.
        spec: ``dict(tap=..., loss=dict(type=...))`` with the options that :class:`DistillHook` describes.
        teachers: Names of the teachers.

    Raises:
        KeyError: ``of`` names no teacher, or the loss has a type that is not registered.
        TypeError: Keys or arguments are unknown or missing.
        ValueError: A setting is out of range.
    """
    _check_keys(name, spec)
    try:
        loss = MODELS.build(spec['loss'])
        schedule = WeightSchedule(**spec.get('schedule', {}))
        rows = Rows(**{key: spec.get(key) for key in _ROWS})
    except KeyError as error:
        raise KeyError(f'term {name!r}: {error.args[0]}{_similar_losses(spec["loss"])}') from error
    except (TypeError, ValueError) as error:
        raise type(error)(f'term {name!r}: {error}') from error
    student, teacher = _pairs_of(name, spec)
    return Term(
        name,
        student=student,
        teacher=teacher,
        loss=loss,
        of=_teacher_of(name, spec, teachers),
        schedule=schedule,
        agreement=spec.get('agreement', False),
        rows=rows,
        choice=spec.get('choice', 'uniform'),
        logits=_logits_of(name, spec),
        ignore_index=spec.get('ignore_index', 255),
        **{key: _by_side(name, key, spec.get(key)) for key in _BY_SIDE},
    )


def _check_keys(name: str, spec: Mapping[str, Any]) -> None:
    if set(spec) - set(_OPTIONS) in [taps | {'loss'} for taps in _TAPS]:
        return
    known = ['tap', 'student', 'teacher', 'pairs', 'choice', 'loss', *_OPTIONS]
    hints = [near_misses(key, known) for key in spec if key not in known]
    raise TypeError(
        f'term {name!r}: expected dict(tap=..., loss=...), dict(student=..., teacher=..., loss=...) or '
        f'dict(pairs=[...], choice=..., loss=...), with any of {_OPTIONS}, but got the keys '
        f'{"; ".join([str(sorted(spec)), *filter(None, hints)])}'
    )


def _pairs_of(name: str, spec: Mapping[str, Any]) -> tuple[str | tuple[str, ...], str | tuple[str, ...]]:
    """Return what is tapped of student and teacher: one name each, or as many."""
    if 'pairs' not in spec:
        return spec.get('student', spec.get('tap')), spec.get('teacher', spec.get('tap'))
    pairs = spec['pairs']
    if not pairs or any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"term {name!r}: expected pairs of taps, [('backbone.layer2', 'backbone.layer3'), ...], first that of the "
            f'student, but got {pairs!r}'
        )
    student, teacher = zip(*pairs, strict=True)
    return student, teacher


def _logits_of(name: str, spec: Mapping[str, Any]) -> tuple[str, str] | None:
    logits = spec.get('logits')
    if logits is None:
        return None
    if isinstance(logits, str):
        return logits, logits
    if set(logits) != {'student', 'teacher'}:
        raise TypeError(
            f'term {name!r}: expected logits=... to be a tap or dict(student=..., teacher=...) but got {logits!r}'
        )
    return logits['student'], logits['teacher']


def _by_side(name: str, key: str, value: Any) -> tuple[Any, Any]:
    """Return what a key says of student and teacher."""
    if not isinstance(value, Mapping):
        return value, value
    if not value or set(value) - {'student', 'teacher'}:
        raise TypeError(
            f'term {name!r}: expected {key}=... for both networks or {key}=dict(student=..., teacher=...) but got '
            f'{dict(value)!r}'
        )
    return value.get('student'), value.get('teacher')


def _similar_losses(spec: Mapping[str, Any]) -> str:
    hint = near_misses(str(spec.get('type')).rpartition('.')[2], MODELS.module_dict)
    return f'; {hint}' if hint else ''


def _teacher_of(name: str, spec: Mapping[str, Any], teachers: Collection[str]) -> str:
    if 'of' not in spec and len(teachers) == 1:
        return next(iter(teachers))
    if spec.get('of') not in teachers:
        raise KeyError(
            f'term {name!r}: expected of=... to name one of the teachers {sorted(teachers)} but got {spec.get("of")!r}'
        )
    return spec['of']


# --------------------------------------------------------------------------------------------------
# The hook itself.

TERM_STATES = 'distillation'
"""Entry of the checkpoint with what terms of several pairs of layers know of them."""
_REHEARSAL_SAMPLES = 4


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds ``loss_<term>`` between tapped tensors of student and frozen teachers to the student's losses.

    The student's parameters, optimizer, EMA copy, checkpoints and inference are those of a run without the hook.
    A teacher gets the student's preprocessed batch, in its own normalization and size.

    Everything is set up in ``before_train``: ``before_run`` also happens when a model is only tested, which needs no
    teacher, and ``before_train`` comes after weights are loaded, activation checkpointing is switched on and EMA has
    made its copy, but before the compiler sees the first batch. There all terms are rehearsed with a few samples of
    the training data, so that a tap that never fires or shapes that do not fit are found before the first iteration;
    the rehearsal works on a copy of the student's tensors, and training is bit-identical to one without it.

    Whenever a line is logged, statistics of each term are computed and logged with it
    (:func:`mmkd_ext.distill.report.diagnose`, and ``share_<term>`` of the total loss); in other iterations they
    cost nothing.

    Args:
        teacher: The only teacher, ``dict(config=..., checkpoint=...)`` with a config path or ``'<package>::<path>'``,
            or ``model=dict(type=...)``, ``timm=`` or ``torchvision=`` in place of ``config=``; all keys are those of
            :func:`mmkd_ext.models.teacher.build_teacher`.
        terms: By name, ``dict(tap=..., loss=dict(type=...))``, or ``student=`` and ``teacher=`` in place of ``tap=``
            where the names differ. Taps: :meth:`mmkd_ext.distill.Tap.parse`; losses: :class:`mmkd_ext.distill.Term`.
            Options: ``of=`` the name of its teacher, where there are several; ``schedule=dict(...)``
            (:class:`mmkd_ext.distill.WeightSchedule`); ``agreement=True`` if both taps are logits of the same classes;
            ``logits=`` a tap, or ``dict(student=..., teacher=...)``, for losses that look at predictions too; for maps,
            ``pooling='gap'``, ``tokens=`` or ``positions=`` (:class:`mmkd_ext.distill.Rows`), and where their axes
            cannot be told from the layers, ``layout=`` and ``prefix_tokens=``, each a value or ``dict(student=...,
            teacher=...)``; ``ignore_index=`` of segmentation. In place of ``tap=``,
            ``pairs=[(student, teacher), ...]`` names several candidates and ``choice=`` how they become one loss
            (:mod:`mmkd_ext.distill.layer_choice`).
        teachers: Several teachers by name, in place of ``teacher``.

    Raises:
        KeyError: A term names no teacher.
        TypeError: Unknown or missing keys, or a loss that cannot be built or called.
        ValueError: There are no terms, a teacher has none, or a schedule makes no sense.

    Example:
        >>> custom_hooks = [dict(
        ...     type='mmkd_ext.DistillHook',
        ...     teacher=dict(config='mmpretrain::resnet/resnet34_8xb16_cifar10.py', checkpoint='resnet34.pth'),
        ...     terms=dict(kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0))))]
    """

    def __init__(
        self,
        teacher: Mapping[str, Any] | None = None,
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        teachers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if bool(teacher) == bool(teachers):
            raise TypeError('DistillHook: expected one of teacher=dict(...) and teachers=dict(name=dict(...), ...)')
        if not terms:
            raise ValueError('DistillHook: expected at least one term but got none')
        self.teachers = dict(teachers or {'teacher': teacher or {}})
        for name, spec in self.teachers.items():
            check_teacher_spec(spec, self._who(name))
        self._terms = [build_term(name, spec, self.teachers) for name, spec in terms.items()]
        idle = sorted(self.teachers.keys() - {term.of for term in self._terms})
        if idle:
            raise ValueError(f'DistillHook: expected a term of each teacher but {idle} have none; remove them')
        self._distillation: Distillation | None = None
        self._cost: TeacherCost | None = None

    def before_train(self, runner: Runner) -> None:
        """Build the teachers, hook them to the student, and rehearse.

        Raises:
            FileNotFoundError: A checkpoint is missing; the message has the command that makes it.
            KeyError: A tap names no module.
            RuntimeError: A checkpoint is of another architecture, a tap does not fire, or it gets no gradient.
            ValueError: A tap is malformed, a checkpoint is refused or corrupt, or a teacher wants other channels, knows
                other classes than those that a term compares, or is to get images that are normalized twice.
        """
        try:
            self._set_up(runner)
        except TypeError as error:
            # Of a TypeError the Runner would keep the text only, and add the address of this object.
            raise RuntimeError(str(error)) from error

    def _set_up(self, runner: Runner) -> None:
        self._check_time(runner)
        student = student_of(runner)
        device = next(student.parameters()).device
        teachers = {name: self._build_teacher(name, student, runner) for name in self.teachers}
        for term in self._terms:
            term.loss.to(device)
        sources = {
            name: self._by_name(name, teacher, self._cached(name, teacher.frozen.to(device), runner), runner, student)
            for name, teacher in teachers.items()
        }
        self._distillation = Distillation(student, sources, self._terms)
        try:
            self._rehearse(runner, self._distillation, student, device)
        except BaseException:
            self.after_train(runner)
            raise
        runner.logger.info(_report(teachers, self._distillation))
        for hint in filter(None, (_hint(term, runner) for term in self._terms)):
            runner.logger.warning(hint)
        self._cost = TeacherCost(self._distillation, device)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Weigh the terms by their schedules, and decide what is measured in this iteration."""
        assert self._distillation is not None  # before_train() has made it
        self._distillation.set_time(**self._time(runner))
        self._distillation.diagnosing = self._is_logged(runner, batch_idx)
        if self._cost is not None:
            self._cost.before_step()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Report what the teachers cost, once it is known.

        Raises:
            RuntimeError: The training step did not run the student's forward with ``mode='loss'``.
        """
        assert self._distillation is not None
        if self._distillation.num_steps == 0:
            raise RuntimeError(
                "DistillHook: expected the student's train_step to call its forward with mode='loss' but it did not, "
                'so no term can be added; train a model that follows the contract of mmengine.BaseModel'
            )
        cost = self._cost.after_step() if self._cost is not None else None
        if cost:
            runner.logger.info(f'DistillHook: {cost}')
            self._cost = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what terms of several pairs of layers know of them; without such terms nothing is added."""
        states = {term.name: term.layer_choice.state_dict() for term in self._terms}
        if any(states.values()):
            checkpoint[TERM_STATES] = states

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on with the pairs of layers of the run that is resumed."""
        states = checkpoint.get(TERM_STATES, {}) if runner._resume else {}
        for term in self._terms:
            if term.name in states:
                term.layer_choice.load_state_dict(states[term.name])

    def after_train(self, runner: Runner) -> None:
        """Leave the student as it was found."""
        if self._distillation is not None:
            self._distillation.remove()
        self._distillation = self._cost = None

    def _time(self, runner: Runner) -> dict[str, int]:
        # Loops that count iterations say that all is epoch 0; losses want to know of passes over the data.
        return {'epoch': runner.epoch or runner.iter // len(runner.train_dataloader), 'iteration': runner.iter}

    def _check_time(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        for term in self._terms:
            if term.schedule != WeightSchedule() and term.schedule.by_epoch:
                raise ValueError(
                    f'term {term.name!r}: expected a schedule in iterations, as the training loop counts no epochs; '
                    'write schedule=dict(by_epoch=False, ...) with times in iterations'
                )

    def _who(self, name: str) -> str:
        return 'teacher' if len(self.teachers) == 1 else f'teacher {name!r}'

    def _build_teacher(self, name: str, student: BaseModel, runner: Runner) -> Teacher:
        taps = [tap for term in self._terms if term.of == name for tap in term.teacher_taps]
        return build_teacher(self.teachers[name], taps, student, self._who(name), runner.train_dataloader.dataset)

    def _cached(self, name: str, teacher: FrozenTeacher, runner: Runner) -> FrozenTeacher | CachedTeacher:
        folder = self.teachers[name].get('cache')
        return teacher if folder is None else build_cached_teacher(runner, teacher, folder)

    def _by_name(
        self, name: str, teacher: Teacher, source: FeatureSource, runner: Runner, student: nn.Module
    ) -> FeatureSource:
        """Put logits that are compared class by class in the student's order, where both sides name their classes."""
        own, others = classes_in(getattr(runner.train_dataloader.dataset, 'metainfo', None)), teacher.classes
        if own is None or others is None or own == others:
            return source
        taps: dict[str, int] = {}
        for term in self._terms:
            if term.of == name:
                taps |= class_taps(term, student, teacher.frozen.model, len(own), len(others))
        if not taps:
            return source
        columns = columns_of(own, others, self._who(name))
        runner.logger.info(
            f'DistillHook: logits of {self._who(name)} at {", ".join(taps)} are put in the order of the student, by '
            f'the names of {len(own)} of its {len(others)} classes'
        )
        return ClassesByName(source, taps, columns, len(others), self._who(name))

    def _rehearse(self, runner: Runner, distillation: Distillation, student: BaseModel, device: torch.device) -> None:
        student.train()  # as the training loop does next
        is_single = isinstance(runner.optim_wrapper, OptimWrapper)
        loader = runner.train_dataloader
        with (
            same_randomness(device),
            same_state(loader.dataset, loader.collate_fn, student.data_preprocessor),
            runner.optim_wrapper.optim_context(student) if is_single else nullcontext(),
        ):
            for num_samples in (_REHEARSAL_SAMPLES, _REHEARSAL_SAMPLES + 1):
                data = student.data_preprocessor(_first_batch(loader, num_samples), True)
                distillation.rehearse(student, **call_of(data, mode='loss'))
                # One axis of 4 is that of the images if it is of 5 the next time, and not 4 layers of a decoder.
                if not distillation.is_doubtful:
                    break

    def _is_logged(self, runner: Runner, batch_idx: int) -> bool:
        """Whether LoggerHook writes a line after this iteration."""
        hook = next((hook for hook in runner.hooks if isinstance(hook, LoggerHook)), None)
        if hook is None:
            return False
        loader = runner.train_dataloader
        writes_rest = not hook.ignore_last or len(loader) <= hook.interval
        return self.every_n_inner_iters(batch_idx, hook.interval) or (
            writes_rest and self.end_of_epoch(loader, batch_idx)
        )


def _first_batch(loader: DataLoader, count: int = _REHEARSAL_SAMPLES) -> Any:
    """Load a few samples from all over the dataset, as the training's loader does but without moving it on."""
    dataset: Any = loader.dataset
    num_samples = len(dataset)
    indices = range(0, num_samples, max(num_samples // count, 1))[:count]
    # Files that a dataset opens on first use must not be opened in this process if workers are forked from it later.
    rehearsal = DataLoader(
        dataset,
        batch_sampler=[list(indices)],
        collate_fn=loader.collate_fn,
        num_workers=min(loader.num_workers, 1),
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    return next(iter(rehearsal))


def _hint(term: Term, runner: Runner) -> str | None:
    """Say so if the weight of a loss that shrinks with the batch belongs to a much larger one."""
    published, weight = getattr(term.loss, 'published_batch', None), getattr(term.loss, 'loss_weight', None)
    batch_size = getattr(runner.train_dataloader.batch_sampler, 'batch_size', None)
    if not published or not weight or not isinstance(batch_size, int) or term.rows.positions:
        return None
    num_rows = batch_size * (term.rows.tokens or 1) * (get_world_size() if getattr(term.loss, 'gather', False) else 1)
    right = published[0] * num_rows / published[1]
    if weight <= 4 * right:
        return None
    return (
        f'DistillHook: term {term.name!r}: loss_weight={weight:g} of {type(term.loss).__name__} is that of batches of '
        f'{published[1] * weight / published[0]:.0f} rows but the term compares {num_rows}; the loss shrinks as one '
        f'over the number of rows, so loss_weight={right:g} has the same effect here. Look at share_{term.name} in the '
        'log'
    )


def _report(teachers: Mapping[str, Teacher], distillation: Distillation) -> str:
    rows = [
        (name, teacher.source, f'{teacher.num_parameters:,}', teacher.loaded, str(teacher.frozen.adapt))
        for name, teacher in teachers.items()
    ]
    about_teachers = table(('teacher', 'source', 'parameters', 'entries loaded', 'inputs'), rows)
    return f'DistillHook:\n{about_teachers}\n\n{term_table(distillation.terms, distillation.shapes)}'
