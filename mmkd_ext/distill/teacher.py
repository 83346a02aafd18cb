"""A model that teaches and is never changed."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.recorder import AllTapsFired, Recorder

__all__ = ['FrozenTeacher']


class FrozenTeacher:
    """The teacher: in eval mode, without gradients, outside of the student's module tree.

    A plain object and not a module, so that the student's ``state_dict``, ``parameters()``, ``train()``, optimizer,
    EMA copy and DDP reducer never see it. Its parameters and buffers stay bit-identical.

    The first forward is a whole one and shows that each tap fires once, and is not overwritten later. All others end
    when the last tap has fired: what comes after it, often the head, is not computed. A compiled teacher always runs as
    a whole, but returns nothing, so the compiler leaves the same part out.

    Args:
        model: The model, weights loaded. It is switched to eval mode, and its parameters need no gradient any more.
        taps: Texts for :meth:`Tap.parse`.
        adapt: Makes the teacher's inputs from the student's, for example an :class:`InputAdapter`.
        who: Name of the teacher in messages.
        compiler: Whether the forward is compiled, or the keyword arguments of :func:`torch.compile` to do it with.

    Raises:
        KeyError: A tap names no module of ``model``.
        ValueError: A tap is malformed.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Iterable[str],
        adapt: Callable[[Any], Any] | None = None,
        who: str = 'teacher',
        compiler: bool | Mapping[str, Any] = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.taps = tuple(taps)
        self.adapt = adapt
        self.who = who
        # OpenMMLab models are called with (inputs, data_samples, mode), those of timm and torchvision with inputs.
        self._has_mode = 'mode' in inspect.signature(model.forward).parameters
        self._recorder = Recorder(model, self.taps, who=who)
        self._is_compiled = bool(compiler)
        self._call = self._run
        if compiler:
            self._call = torch.compile(self._run, **(compiler if isinstance(compiler, Mapping) else {}))
        self._is_checked = False

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FrozenTeacher':
        """Return the teacher itself: it never changes, so copies of its student (EMA) share it."""
        return self

    def to(self, device: torch.device | str) -> 'FrozenTeacher':
        """Move the model; the student's device is the right one."""
        self.model.to(device)
        if hasattr(self.adapt, 'to'):
            self.adapt.to(device)
        return self

    def features(self, inputs: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Call the model and return its tapped tensors, without a graph and in the caller's autocast mode.

        Args:
            inputs: The student's batch.
            *args: Further arguments of an OpenMMLab model; a model whose forward has no ``mode`` gets none of them.
            **kwargs: Likewise.

        Raises:
            RuntimeError: In the first call: a tap did not fire exactly once, or its tensor was overwritten in place
                afterwards.
            ValueError: The teacher wants other channels than ``inputs`` have.
        """
        if not self._has_mode:
            args, kwargs = (), {}
        stop_early = self._is_checked and not self._is_compiled
        with torch.no_grad(), self._recorder.record(stop_early) as features:
            images = inputs if self.adapt is None else self.adapt(inputs)
            try:
                self._call(images, *args, **kwargs)
            except AllTapsFired:
                pass
            except RuntimeError as error:
                self._check_channels(images, error)
                raise
        self._is_checked = True
        return features

    def _run(self, images: Any, *args: Any, **kwargs: Any) -> None:
        self.model(images, *args, **kwargs)

    def _check_channels(self, images: Any, error: RuntimeError) -> None:
        """Say so if a forward failed because the first convolution wants other channels."""
        stem = next((module for module in self.model.modules() if isinstance(module, nn.Conv2d)), None)
        views = images if isinstance(images, (list, tuple)) else [images]
        for view in views:
            if stem is not None and view.ndim == 4 and view.shape[1] != stem.in_channels:
                raise ValueError(
                    f'{self.who}: expected inputs of {stem.in_channels} channels but the student gets images of shape '
                    f'{tuple(view.shape)}; use a teacher for the same kind of images'
                ) from error
