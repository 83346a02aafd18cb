"""Work that several losses of one step have in common, done once.

Shape suffixes: none; tensors of any shape.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ['once', 'sharing']

Result = TypeVar('Result')
# By what is computed, of which memory: the tensor, kept so that its memory is not given to another, and the result.
_results: ContextVar[dict[tuple[Any, ...], tuple[Tensor, Any]] | None] = ContextVar('_results', default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Let the losses that are computed inside share what they measure of the same tensors.

    These are the distances of RKD's losses (:func:`~mmkd_ext.functional.pairwise.pairwise`), the copies in float32 of
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
