"""Names of the tensors that distillation compares: ``'neck'``, ``'backbone[-1]'``, ``'head.fc:in'``."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ['AllTapsFired', 'Recorder', 'Tap']

_GRAMMAR = re.compile(r'(?P<path>[^\s\[\]:.]+(?:\.[^\s\[\]:.]+)*)(?P<input>:in)?(?:\[(?P<index>-?\d+)\])?')


@dataclass(frozen=True)
class Tap:
    """One tensor at one module of a model.

    Attributes:
        path: Name of the module as in ``model.named_modules()``.
        is_input: True for the input of the module, False for its output.
        index: Position in a tuple; None for a plain tensor or a tuple of one.
    """

    path: str
    is_input: bool = False
    index: int | None = None

    @classmethod
    def parse(cls, text: str) -> 'Tap':
        """Read ``path``, ``path[index]``, ``path:in`` or ``path:in[index]``.

        Raises:
            TypeError: ``text`` is not a string.
            ValueError: ``text`` does not follow the grammar.
        """
        if not isinstance(text, str):
            raise TypeError(f'tap: expected a string but got {text!r} of type {type(text).__name__}')
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ValueError(
                f'tap: expected `module.path`, optionally followed by `:in` and `[index]`, but got {text!r}; '
                "write for example 'neck', 'backbone[-1]' or 'head.fc:in'"
            )
        index = match['index']
        return cls(match['path'], match['input'] is not None, None if index is None else int(index))

    def __str__(self) -> str:
        return self.path + (':in' if self.is_input else '') + ('' if self.index is None else f'[{self.index}]')

    def resolve(self, model: nn.Module, caller: str) -> nn.Module:
        """Return the tapped module of ``model``.

        Raises:
            KeyError: ``model``, called ``caller`` in the message, has no such module; near misses are listed.
        """
        modules = dict(model.named_modules())
        if self.path in modules:
            return modules[self.path]
        names = [name for name in modules if name]
        last_word = self.path.rpartition('.')[2]
        alike = [name for name in names if name.rpartition('.')[2] == last_word]
        near = list(dict.fromkeys(difflib.get_close_matches(self.path, names) + alike))[:5]
        hint = f'did you mean one of {near}?' if near else f'its children are {[n for n, _ in model.named_children()]}'
        raise KeyError(f'{caller}: expected a module {self.path!r} (tap {str(self)!r}) but found none; {hint}')

    def pick(self, value: Any, caller: str) -> torch.Tensor:
        """Return the tapped tensor of ``value``, what the module returned or received.

        Raises:
            TypeError: ``value`` is a longer tuple and the tap has no index, or what was picked is no tensor.
            IndexError: the tuple is shorter than the index asks for.
        """
        if isinstance(value, (tuple, list)):
            value = self._pick_item(value, caller)
        elif self.index is not None:
            found = 'a tensor; drop the index' if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f'{caller}: tap {str(self)!r} expected a tuple but got {found}')
        if not isinstance(value, torch.Tensor):
            raise TypeError(f'{caller}: tap {str(self)!r} expected a tensor but got {type(value).__name__}')
        return value

    def _pick_item(self, items: tuple | list, caller: str) -> Any:
        if self.index is None:
            if len(items) != 1:
                raise TypeError(
                    f'{caller}: tap {str(self)!r} expected a tensor but got a {type(items).__name__} of {len(items)}; '
                    f"choose an item, for example '{self}[-1]'"
                )
            return items[0]
        if not -len(items) <= self.index < len(items):
            raise IndexError(
                f'{caller}: tap {str(self)!r} expected more than {len(items)} items; use an index in '
                f'[{-len(items)}, {len(items) - 1}]'
            )
        return items[self.index]


# --------------------------------------------------------------------------------------------------
# Records tensors inside a model's forward without changing the model's code.


class AllTapsFired(BaseException):
    """Ends a forward of which nothing more is needed; no ``Exception``, so that no model catches it."""


class _Probe:
    """A hook on one module, active only while its recorder records.

    An object and not a closure: a deep copy (EMA) or a pickle of the model gets a probe of its own. Registered once
    and switched by a flag: a compiled model ignores hooks that come after its first call.
    """

    def __init__(self, tap: Tap, caller: str) -> None:
        self.tap = tap
        self.caller = caller
        self.is_active = False
        self.records: list[tuple[torch.Tensor, int | None]] = []
        self.ends_with: Sequence[_Probe] = ()

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], *output: Any) -> None:
        """Record the input of ``module`` as forward pre-hook, its output as forward hook."""
        if not self.is_active:
            return
        value = (args or tuple(kwargs.values())) if self.tap.is_input else output[0]
        feature = self.tap.pick(value, self.caller)
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
                f'{self.caller}: tap {str(self.tap)!r} expected to fire once in one forward but fired '
                f'{len(self.records)} times; {reason}'
            )
        feature, version = self.records[0]
        if version is not None and feature._version != version:
            raise RuntimeError(
                f'{self.caller}: tap {str(self.tap)!r} expected a tensor that stays as it was recorded but it was '
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
        caller: Name of the model in messages.

    Raises:
        KeyError: A tap names no module of ``model``.
        ValueError: A tap is malformed.
    """

    def __init__(self, model: nn.Module, taps: Iterable[str], caller: str = 'student') -> None:
        self.caller = caller
        self._probes = {text: _Probe(Tap.parse(text), caller) for text in taps}
        modules = [probe.tap.resolve(model, caller) for probe in self._probes.values()]
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
