"""Records tensors inside a model's forward without changing the model's code."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mmkd_ext.distill.tap import Tap

__all__ = ['AllTapsFired', 'Recorder']


class AllTapsFired(BaseException):
    """Ends a forward of which nothing more is needed; no ``Exception``, so that no model catches it."""


class _Probe:
    """A hook on one module, active only while its recorder records.

    An object and not a closure: a deep copy (EMA) or a pickle of the model gets a probe of its own. Registered once
    and switched by a flag: a compiled model ignores hooks that come after its first call.
    """

    def __init__(self, tap: Tap, who: str) -> None:
        self.tap = tap
        self.who = who
        self.is_active = False
        self.records: list[tuple[torch.Tensor, int | None]] = []
        self.ends_with: Sequence[_Probe] = ()

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], *output: Any) -> None:
        """Record the input of ``module`` as forward pre-hook, its output as forward hook."""
        if not self.is_active:
            return
        value = (args or tuple(kwargs.values())) if self.tap.is_input else output[0]
        feature = self.tap.pick(value, self.who)
        # The version counter counts in-place writes; the compiler does not keep it.
        self.records.append((feature, None if torch.compiler.is_compiling() else feature._version))
        if self.ends_with and all(probe.records for probe in self.ends_with):
            raise AllTapsFired

    def attach(self, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        register = module.register_forward_pre_hook if self.tap.is_input else module.register_forward_hook
        return register(self, with_kwargs=True)

    def set_active(self, is_active: bool) -> None:
        self.is_active = is_active
        self.records = []

    def feature(self) -> torch.Tensor:
        if len(self.records) != 1:
            reason = (
                'a module whose .forward() is called directly, or which is only a container, fires no hook; '
                'tap one of its children'
                if not self.records
                else 'a module that runs several times has no single output; tap one that runs once'
            )
            raise RuntimeError(
                f'{self.who}: tap {str(self.tap)!r} expected to fire once in one forward but fired '
                f'{len(self.records)} times; {reason}'
            )
        feature, version = self.records[0]
        if version is not None and feature._version != version:
            raise RuntimeError(
                f'{self.who}: tap {str(self.tap)!r} expected a tensor that stays as it was recorded but it was '
                'overwritten in place later in the forward (`out += identity`, an inplace activation); '
                'tap the module that overwrites it'
            )
        return feature


class Recorder:
    """Collects the tapped tensors of one forward of a model.

    Nothing is kept between forwards, so no graph outlives its iteration and the recomputation of activation
    checkpointing in the backward records nothing.

    Args:
        model: The model to listen to. It gets one hook per tap, which is idle outside of a recording.
        taps: Texts for :meth:`Tap.parse`; equal ones are recorded once.
        who: Name of the model in messages.

    Raises:
        KeyError: A tap names no module of ``model``.
        ValueError: A tap is malformed.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str], who: str = 'student') -> None:
        self.who = who
        self._probes = {text: _Probe(Tap.parse(text), who) for text in taps}
        modules = [probe.tap.resolve(model, who) for probe in self._probes.values()]
        self._handles = [probe.attach(module) for probe, module in zip(self._probes.values(), modules, strict=True)]

    @contextmanager
    def record(self, stop_early: bool = False) -> Iterator[dict[str, torch.Tensor]]:
        """Record one forward; the yielded dict is filled when the block ends.

        Args:
            stop_early: Whether the forward ends by :class:`AllTapsFired`, to be caught inside of the block, as soon as
                all taps have fired. A tap that would fire again is then not noticed, nor one that would be overwritten.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
            >>> recorder = Recorder(model, ['0', '1:in'])
            >>> with recorder.record() as features:
            ...     _ = model(torch.ones(2, 4))
            >>> features['0'].shape
            torch.Size([2, 3])

        Raises:
            RuntimeError: see :meth:`stop`.
        """
        features: dict[str, torch.Tensor] = {}
        self.start()
        for probe in self._probes.values():
            probe.ends_with = tuple(self._probes.values()) if stop_early else ()
        try:
            yield features
        except BaseException:
            self._set_active(False)
            raise
        features.update(self.stop())

    def start(self) -> None:
        """Begin to record, forgetting whatever an interrupted recording has left."""
        self._set_active(True)

    def stop(self) -> dict[str, torch.Tensor]:
        """End the recording and return the tensors by the text of their tap.

        Raises:
            RuntimeError: A tap did not fire exactly once, or its tensor was overwritten in place afterwards.
        """
        try:
            return {text: probe.feature() for text, probe in self._probes.items()}
        finally:
            self._set_active(False)

    def remove(self) -> None:
        """Take all hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _set_active(self, is_active: bool) -> None:
        for probe in self._probes.values():
            probe.set_active(is_active)
