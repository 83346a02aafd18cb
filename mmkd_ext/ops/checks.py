"""What several functions of this package demand of their arguments."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    'check_choice',
    'check_dims',
    'check_not_negative',
    'check_pair',
    'check_positive',
    'labels_of_batch',
    'near_misses',
    'refuse_second_derivative',
]


def check_positive(caller: str, **values: float) -> None:
    """Refuse a setting that is not a positive finite number.

    Args:
        caller: Function or class that speaks in the error.
        **values: The settings by name.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a value is zero, negative, infinite or NaN.
    """
    for name, value in values.items():
        _check_number(caller, name, value)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f'{caller}: expected {name} > 0 but got {value}; use a positive finite number')


def check_not_negative(caller: str, **values: float) -> None:
    """Refuse a setting that is not a finite number >= 0, such as the weight of a loss, which 0 switches off.

    Args:
        caller: Function or class that speaks in the error.
        **values: The settings by name.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a value is negative, infinite or NaN.
    """
    for name, value in values.items():
        _check_number(caller, name, value)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f'{caller}: expected {name} >= 0 but got {value}; use a finite number, 0 to switch off')


def check_choice(caller: str, choices: Sequence[str], **values: str) -> None:
    """Refuse a setting that is not one of the words in ``choices``.

    Args:
        caller: Function or class that speaks in the error.
        choices: The words allowed.
        **values: The settings by name.

    Raises:
        ValueError: If a value is not in ``choices``.
    """
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f'{caller}: expected {name} in {tuple(choices)} but got {value!r}; use one of these words')


def check_dims(caller: str, layout: str, **tensors: Tensor) -> None:
    """Refuse a tensor with another number of dimensions than ``layout`` names.

    Args:
        caller: Function or class that speaks in the error.
        layout: Names of the dimensions, such as ``'V H B C'``.
        **tensors: The tensors by name.

    Raises:
        ValueError: If the number of dimensions differs.
    """
    dims = layout.split()
    for name, tensor in tensors.items():
        if tensor.ndim != len(dims):
            raise ValueError(
                f'{caller}: expected {name} of shape ({", ".join(dims)}) but got {tuple(tensor.shape)}; '
                f'add or remove dimensions'
            )


def check_pair(caller: str, student: Tensor, teacher: Tensor) -> None:
    """Refuse what two networks make of a batch if the samples do not pair up, or a value is NaN.

    Values are looked at on the CPU only: to look, the host would have to wait for a GPU in every step. There a NaN
    passes through into the loss, where the Runner's own check of losses, or the gradient scaler, sees it.

    Args:
        caller: Function or class that speaks in the error.
        student: What the student makes of N samples, shape (N, ...), at least two dimensions.
        teacher: What the teacher makes of them, shape (N, ...), at least two dimensions.

    Raises:
        ValueError: If there are too few dimensions, the numbers of samples differ, or a value is NaN.
    """
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher):
        raise ValueError(
            f'{caller}: expected student and teacher of shape (N, ...) with the same N but got {tuple(student.shape)}, '
            f'{tuple(teacher.shape)}; feed both networks the same samples, one a row'
        )
    if torch.compiler.is_compiling():
        return
    for name, tensor in (('student', student), ('teacher', teacher)):
        # The sum, many times faster, shows whether it is worth looking at each value.
        if tensor.device.type == 'cpu' and tensor.sum().isnan() and tensor.isnan().any():
            raise ValueError(
                f'{caller}: expected numbers in {name} but got NaN in {int(tensor.isnan().sum())} of {tensor.numel()} '
                f'places; look for the layer that makes them, or lower the learning rate'
            )


def refuse_second_derivative(caller: str) -> None:
    """Raise in a backward that autograd records, because it is a closed form without a graph of its own.

    Args:
        caller: Function that speaks in the error.

    Raises:
        RuntimeError: In backward with ``create_graph=True``.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            f'{caller}: expected a first-order backward but got create_graph=True; the gradient is a closed form '
            f'without a graph of its own, so leave this loss out of what is differentiated twice'
        )


def _check_number(caller: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{caller}: expected {name} to be a number but got {value!r}; write it as a float')


def near_misses(name: str, names: Iterable[str]) -> str:
    """Return what a message says of a name that does not exist: those that it may have been meant to be.

    Args:
        name: What was asked for.
        names: Those that exist. Of dotted ones, those with the same last word count too.

    Returns:
        "did you mean one of [...]?", at most five names; nothing where none is near.
    """
    names = list(names)
    last_word = name.rpartition('.')[2]
    alike = [other for other in names if other.rpartition('.')[2] == last_word]
    near = list(dict.fromkeys([*difflib.get_close_matches(name, names), *alike]))[:5]
    return f'did you mean one of {near}?' if near else ''


def labels_of_batch(data_samples: Iterable[Any] | None) -> Tensor | None:
    """Return the labels of a batch of data samples.

    Args:
        data_samples: B samples of OpenMMLab with ``gt_label`` (1,).

    Returns:
        (B,), on the device of the labels; None if there are no samples, or one has no label.
    """
    labels = [getattr(sample, 'gt_label', None) for sample in data_samples or ()]
    known = [label for label in labels if label is not None]
    return torch.cat(known) if known and len(known) == len(labels) else None
