"""What a step computes once for all its losses, and what it computes in full precision whatever autocast says."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ['full_precision', 'once', 'products_are_exact', 'sharing']

P = ParamSpec('P')
Result = TypeVar('Result')
# By what is computed, of which memory: the tensor, kept so that its memory is not given to another, and the result.
_results: ContextVar[dict[tuple[Any, ...], tuple[Tensor, Any]] | None] = ContextVar('_results', default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let the losses that are computed inside share what they measure of the same tensors.

    These are the distances of RKD's losses (:func:`~mmkd_ext.ops.distances.pairwise`), the copies in float32 of
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


def _upcast(value: object) -> object:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return once(Tensor.float, value) if is_half else value
