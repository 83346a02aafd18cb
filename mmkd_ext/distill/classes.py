"""Logits of a teacher in the student's order of classes, put there by the names of the classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_ext.distill.features import FeatureSource, Tap
from mmkd_ext.distill.term import Term

__all__ = ['ClassesByName', 'class_taps', 'columns_of']


def columns_of(student: Sequence[str], teacher: Sequence[str], caller: str) -> list[int]:
    """Return for each class of the student its place among the teacher's.

    Args:
        student: Names of the student's classes, in the order of its logits.
        teacher: Those of the teacher.
        caller: Name of the teacher in messages.

    Raises:
        ValueError: The teacher lacks a class, or a name stands for several.

    Example:
        >>> columns_of(['1', '2', '10'], ['1', '10', '2'], 'teacher')
        [0, 2, 1]
    """
    if list(student) == list(teacher):
        return list(range(len(student)))
    lacking = [name for name in student if name not in teacher]
    remedy = (
        'compare features and not logits, take a teacher of the same classes, or, if its checkpoint only calls them '
        'otherwise, give the teacher classes=[...], their names in the order of its logits, or classes=None if that is '
        "the student's order"
    )
    if lacking:
        raise ValueError(
            f'{caller}: expected logits of the classes of the student but its checkpoint names others: it lacks '
            f'{_some(lacking)} and has {_some([name for name in teacher if name not in student])}; {remedy}'
        )
    several = sorted({name for name in student if list(teacher).count(name) > 1 or list(student).count(name) > 1})
    if several:
        raise ValueError(
            f"{caller}: expected the student's classes in one order, or one class of each name, but the order is "
            f'another and {_some(several)} stand for several; {remedy}'
        )
    place = {name: index for index, name in enumerate(teacher)}
    return [place[name] for name in student]


def class_taps(
    term: Term, student: nn.Module, teacher: nn.Module, num_student: int, num_teacher: int
) -> dict[str, int]:
    """Return the teacher's taps that a term compares class by class, and the axis of the classes.

    Those are the taps of a loss that says so by ``class_axis``, all that a term calls logits, and, for a loss that says
    nothing, pairs of layers that make one number for each class.

    Args:
        term: The term.
        student: The student.
        teacher: Its teacher.
        num_student: Number of classes of the student.
        num_teacher: Number of classes of the teacher.
    """
    taps = {term.logits[1]: 1} if term.logits else {}
    axis = getattr(term.loss, 'class_axis', 'unknown')
    for tap_S, tap_T in term.pairs:
        if isinstance(axis, int) and not term.logits:
            taps[tap_T] = axis
        elif term.agreement or (
            axis == 'unknown' and _width(student, tap_S) == num_student and _width(teacher, tap_T) == num_teacher
        ):
            taps[tap_T] = 1
    return taps


class ClassesByName:
    """A teacher whose logits are those of the student's classes, in the student's order.

    Args:
        teacher: What gives the tensors.
        taps: Those with logits, and the axis of the classes.
        columns: For each class of the student its place among the teacher's (:func:`columns_of`).
        num_classes: Number of classes of the teacher.
        caller: Name of the teacher in messages.
    """

    def __init__(
        self, teacher: FeatureSource, taps: Mapping[str, int], columns: Sequence[int], num_classes: int, caller: str
    ) -> None:
        self.teacher = teacher
        self.taps = taps
        self.num_classes = num_classes
        self.caller = caller
        self._columns = torch.tensor(columns)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'ClassesByName':
        """Return the teacher itself, as a frozen teacher does."""
        return self

    def features(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the tensors by tap.

        Raises:
            ValueError: What was said to be logits has another number of classes.
        """
        features = dict(self.teacher.features(*args, **kwargs))
        for tap, axis in self.taps.items():
            logits = features[tap]
            if logits.shape[axis] != self.num_classes:
                raise ValueError(
                    f'{self.caller}: expected logits of its {self.num_classes} classes at tap {tap!r}, to put them in '
                    f'the order of the student, but got the shape {tuple(logits.shape)}; tap the logits, or give the '
                    'teacher classes=None if its classes are those of the student in the same order'
                )
            self._columns = self._columns.to(logits.device)
            features[tap] = logits.index_select(axis, self._columns)
        return features


def _width(model: nn.Module, tap: str) -> int | None:
    """Number of outputs of a tapped layer, if it says that."""
    parsed = Tap.parse(tap)
    if parsed.is_input:
        return None
    module = parsed.resolve(model, 'tap')
    return getattr(module, 'out_features', getattr(module, 'out_channels', None))


def _some(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:5])) + (f' and {len(names) - 5} more' if len(names) > 5 else '') or 'no others'
