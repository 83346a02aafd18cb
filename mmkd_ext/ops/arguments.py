"""What every formula does with its arguments first: checks them, brings them to full precision, to length 1."""

import difflib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = [
    'check_choice',
    'check_dims',
    'check_not_negative',
    'check_pair',
    'check_positive',
    'full_precision',
    'labels_of_batch',
    'near_misses',
    'once',
    'products_are_exact',
    'refuse_second_derivative',
    'settled_unit_rows',
    'sharing',
    'unit_features',
    'unit_rows',
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


# --------------------------------------------------------------------------------------------------
# What a step computes once for all its losses, and what it computes in full precision whatever autocast says.

P = ParamSpec('P')
Result = TypeVar('Result')
# By what is computed, of which memory: the tensor, kept so that its memory is not given to another, and the result.
_results: ContextVar[dict[tuple[Any, ...], tuple[Tensor, Any]] | None] = ContextVar('_results', default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let the losses that are computed inside share what they measure of the same tensors.

    These are the distances of RKD's losses (:func:`~mmkd_ext.ops.geometry.pairwise`), the copies in float32 of
    half precision features, and the means of maps that terms are pooled to. Numbers are the same as without. What is
    shared is kept until the end of the block: N x N distances and (N, D) copies of each tensor.
    """
    token = _results.set({})
    try:
        yield
    finally:
        _results.reset(token)


def once(function: Callable[..., Result], x: Tensor, *settings: Any) -> Result:
    """Call ``function(x, *settings)``, or inside :func:`sharing` return what it made of the same memory before.

    Memory is the same if its address and layout are, and nothing was written to it in place since. The result must not
    be written to.

    Args:
        function: A function of this tensor alone, defined in a module.
        x: Its argument.
        *settings: Further arguments, hashable.

    Returns:
        The result.
    """
    results = _results.get()
    if results is None or torch.compiler.is_compiling() or x.is_inference():
        return function(x, *settings)
    where = x.untyped_storage().data_ptr(), x.storage_offset(), x.shape, x.stride(), x.dtype, x.device, x._version
    # A result with a graph belongs to the graph of its argument; without gradients there is none.
    key = function, where, id(x) if x.requires_grad and torch.is_grad_enabled() else None, settings
    if key not in results:
        results[key] = x, function(x, *settings)
    return results[key][1]


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run ``function`` outside autocast, its half-precision tensors upcast to float32; float64 stays float64.

    Softmax at small temperatures loses the information of a loss in half precision, so every loss of this package is
    such an island inside mixed precision training. Gradients return in the dtype of the arguments. What a user allows
    for products of float32 matrices (:func:`products_are_exact`) holds inside, too.

    Args:
        function: Takes at least one tensor, by position or by name, and returns one.

    Returns:
        The function with the same signature; its result is float32 or float64.

    Raises:
        TypeError: When called without any tensor.
    """

    @functools.wraps(function)
    def island(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensor = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if tensor is None:
            raise TypeError(f'{function.__name__}: expected torch tensors but got none; use torch.as_tensor')
        with torch.autocast(device_type=tensor.device.type, enabled=False):
            return function(*map(_upcast, args), **{name: _upcast(value) for name, value in kwargs.items()})

    return island


def products_are_exact() -> bool:
    """Whether products of float32 matrices are taken in float32, not in the shorter numbers that a user may allow.

    False also where the user's setting cannot be asked for in one word: torch's old interface refuses to answer once
    the new one was used (``torch.backends.fp32_precision`` and its relatives).
    """
    try:
        return torch.get_float32_matmul_precision() == 'highest'
    except RuntimeError:
        return False


def _upcast(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return once(Tensor.float, value) if is_half else value


# --------------------------------------------------------------------------------------------------
# Length 1, made in two ways on purpose: a bounded gradient for losses, idempotent to the bit for weights.

_SHORTEST = 1e-6


def unit_rows(x: Tensor) -> Tensor:
    r"""Scale every vector to length 1; one shorter than 1e-6 has no direction and stays as it is.

    ``torch.nn.functional.normalize`` divides such a vector by its eps instead, :math:`10^{-12}`: the gradient at a zero
    vector is then multiplied by :math:`10^{12}`. Here no gradient is ever multiplied by more than :math:`10^6`, at a
    zero vector by 1.

    Args:
        x: Vectors, shape (..., D), float32 or float64.

    Returns:
        The same shape; lengths are 1, or below 1e-6.
    """
    norm_X1 = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm_X1 > _SHORTEST, norm_X1, 1.0)


@torch.no_grad()
def settled_unit_rows(weight: Tensor) -> Tensor:
    """Scale every vector to length 1, idempotent to the bit: one that has it stays as it is.

    A vector whose norm is 1 up to rounding (4 machine epsilons) is returned as it is, so a second call changes nothing:
    training resumed from saved unit weights sees the very weights that uninterrupted training sees. To divide again
    would move last bits. A zero vector stays zero; one shorter than 1e-12 is divided by 1e-12.

    Args:
        weight: Shape (..., D), any floating dtype.

    Returns:
        Same shape and dtype, without gradient.
    """
    # Float64 and a cascaded sum, or the norm's own rounding would exceed the tolerance for large D.
    # Apple's devices have no float64.
    norm_dtype = torch.float32 if weight.device.type == 'mps' else torch.float64
    norm = weight.to(norm_dtype).square().sum(dim=-1, keepdim=True).sqrt()
    is_unit = (norm - 1).abs() <= 4 * torch.finfo(weight.dtype).eps
    return torch.where(is_unit, weight, weight / norm.clamp_min(1e-12).to(weight.dtype))


def unit_features(features_ND: np.ndarray) -> np.ndarray:
    """Scale the rows of an array to length 1, as clusterings and maps compare them; a row of zeros stays.

    Args:
        features_ND: (N, D) floats.

    Returns:
        The same shape and dtype.
    """
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    return features_ND / np.where(length_N1 > 0, length_N1, 1)
