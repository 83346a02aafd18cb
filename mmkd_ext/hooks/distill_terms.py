"""Reads the terms of a distillation objective from a config."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from mmkd_ext.distill import Rows, Term, WeightSchedule
from mmkd_ext.registry import MODELS

__all__ = ['build_term']

_TAPS = ({'tap'}, {'student', 'teacher'}, {'pairs'}, {'pairs', 'choice'})
_ROWS = ('pooling', 'tokens', 'positions')
_OPTIONS = ('of', 'schedule', 'agreement', 'logits', *_ROWS)


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
    )


def _check_keys(name: str, spec: Mapping[str, Any]) -> None:
    if set(spec) - set(_OPTIONS) in [taps | {'loss'} for taps in _TAPS]:
        return
    known = ['tap', 'student', 'teacher', 'pairs', 'choice', 'loss', *_OPTIONS]
    near = [match for key in spec if key not in known for match in difflib.get_close_matches(key, known, 1)]
    hint = f'; did you mean {" and ".join(near)}?' if near else ''
    raise TypeError(
        f'term {name!r}: expected dict(tap=..., loss=...), dict(student=..., teacher=..., loss=...) or '
        f'dict(pairs=[...], choice=..., loss=...), with any of {_OPTIONS}, but got the keys {sorted(spec)}{hint}'
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


def _similar_losses(spec: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(spec.get('type')).rpartition('.')[2], MODELS.module_dict)
    return f'; did you mean one of {near}?' if near else ''


def _teacher_of(name: str, spec: Mapping[str, Any], teachers: Collection[str]) -> str:
    if 'of' not in spec and len(teachers) == 1:
        return next(iter(teachers))
    if spec.get('of') not in teachers:
        raise KeyError(
            f'term {name!r}: expected of=... to name one of the teachers {sorted(teachers)} but got {spec.get("of")!r}'
        )
    return spec['of']
