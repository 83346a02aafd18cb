"""Reads the terms of a distillation objective from a config."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from mmkd_ext.distill import Term, WeightSchedule
from mmkd_ext.registry import MODELS

__all__ = ['build_term']

_TAPS = ({'tap'}, {'student', 'teacher'})
_OPTIONS = ('of', 'schedule', 'agreement', 'pooling', 'tokens')


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
    except KeyError as error:
        raise KeyError(f'term {name!r}: {error.args[0]}{_similar_losses(spec["loss"])}') from error
    except TypeError as error:
        raise TypeError(f'term {name!r}: {error}') from error
    except ValueError as error:
        raise ValueError(f'term {name!r}: {error}') from error
    return Term(
        name,
        student=spec.get('student', spec.get('tap')),
        teacher=spec.get('teacher', spec.get('tap')),
        loss=loss,
        of=_teacher_of(name, spec, teachers),
        schedule=schedule,
        agreement=spec.get('agreement', False),
        pooling=spec.get('pooling'),
        tokens=spec.get('tokens'),
    )


def _check_keys(name: str, spec: Mapping[str, Any]) -> None:
    if set(spec) - set(_OPTIONS) in [taps | {'loss'} for taps in _TAPS]:
        return
    known = ['tap', 'student', 'teacher', 'loss', *_OPTIONS]
    near = [match for key in spec if key not in known for match in difflib.get_close_matches(key, known, 1)]
    hint = f'; did you mean {" and ".join(near)}?' if near else ''
    raise TypeError(
        f'term {name!r}: expected dict(tap=..., loss=...) or dict(student=..., teacher=..., loss=...), with any of '
        f'{_OPTIONS}, but got the keys {sorted(spec)}{hint}'
    )


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
