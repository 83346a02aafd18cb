"""A model that teaches and is never changed."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.recorder import Recorder

__all__ = ['FrozenTeacher']


class FrozenTeacher:
    """The teacher: in eval mode, without gradients, outside of the student's module tree.

    A plain object and not a module, so that the student's ``state_dict``, ``parameters()``, ``train()``, optimizer,
    EMA copy and DDP reducer never see it. Its parameters and buffers stay bit-identical.

    Args:
        model: The model, weights loaded. It is switched to eval mode, and its parameters need no gradient any more.
        taps: Texts for :meth:`Tap.parse`.

    Raises:
        KeyError: A tap names no module of ``model``.
        ValueError: A tap is malformed.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str]) -> None:
        self.model = model.eval().requires_grad_(False)
        self._recorder = Recorder(model, taps, who='teacher')

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FrozenTeacher':
        """Return the teacher itself: it never changes, so copies of its student (EMA) share it."""
        return self

    def to(self, device: torch.device | str) -> 'FrozenTeacher':
        """Move the model; the student's device is the right one."""
        self.model.to(device)
        return self

    def features(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Call the model and return its tapped tensors, without a graph and in the caller's autocast mode.

        Raises:
            RuntimeError: A tap did not fire exactly once, or its tensor was overwritten in place afterwards.
        """
        with torch.no_grad(), self._recorder.record() as features:
            self.model(*args, **kwargs)
        return features
