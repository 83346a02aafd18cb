"""The tensors that are compared: named by taps, recorded in a forward of a student or of a frozen teacher.

Shape suffixes: N images, C channels, H x W pixels.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmkd_ext.distill.inputs import InputAdapter
from mmkd_ext.ops.arguments import near_misses

__all__ = [
    'AllTapsFired',
    'FeatureSource',
    'FrozenTeacher',
    'Recorder',
    'Tap',
    'call_of',
]

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
        children = [name for name, _ in model.named_children()]
        hint = near_misses(self.path, filter(None, modules)) or f'its children are {children}'
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

    def feature(self, num_calls: int = 1) -> torch.Tensor:
        if len(self.records) not in (1, num_calls):
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
        if any(version is not None and feature._version != version for feature, version in self.records):
            raise RuntimeError(
                f'{self.caller}: tap {str(self.tap)!r} expected a tensor that stays as it was recorded but it was '
                'overwritten in place later in the forward (`out += identity`, an inplace activation); '
                'tap the module that overwrites it'
            )
        features = [feature for feature, _ in self.records]
        return features[0] if len(features) == 1 else torch.cat(features)


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

    def stop(self, num_calls: int = 1) -> dict[str, torch.Tensor]:
        """End the recording and return the tensors by the text of their tap.

        Args:
            num_calls: A tap may also fire so often, once for each view of the images; its tensors are joined.

        Raises:
            RuntimeError: A tap did not fire exactly once, or its tensor was overwritten in place afterwards.
        """
        try:
            return {text: probe.feature(num_calls) for text, probe in self._probes.items()}
        finally:
            self._set_active(False)

    def remove(self) -> None:
        """Take all hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _set_active(self, is_active: bool) -> None:
        for probe in self._probes.values():
            probe.set_active(is_active)


# --------------------------------------------------------------------------------------------------
# A model that teaches and is never changed.


def call_of(batch: Any, **more: Any) -> dict[str, Any]:
    """Return the arguments of an OpenMMLab model's forward by name.

    Args:
        batch: What a data preprocessor returns, a dict or a tuple (inputs, data_samples); or positional arguments,
            (inputs, data_samples, mode).
        **more: More arguments; they win.
    """
    named = batch if isinstance(batch, Mapping) else zip(('inputs', 'data_samples', 'mode'), batch, strict=False)
    return {**dict(named), **more}


class FeatureSource(Protocol):
    """What gives the tapped tensors of a batch: a frozen teacher, one with a cache, a model in training."""

    def features(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the tensors by tap for a call as of an OpenMMLab model's forward."""


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
        caller: Name of the teacher in messages.
        compiler: Whether the forward is compiled, or the keyword arguments of :func:`torch.compile` to do it with.

    Attributes:
        stops_early: Whether forwards but the first end with the last tap.

    Raises:
        KeyError: A tap names no module of ``model``.
        ValueError: A tap is malformed.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Iterable[str],
        adapt: Callable[[Any], Any] | None = None,
        caller: str = 'teacher',
        compiler: bool | Mapping[str, Any] = False,
    ) -> None:
        self.model = model
        model.eval()  # no chain: backbones of OpenMMLab return nothing
        model.requires_grad_(False)
        self.taps = tuple(taps)
        self.adapt = adapt
        self.caller = caller
        # OpenMMLab models are called with (inputs, data_samples, mode), those of timm and torchvision with inputs.
        self._has_mode = 'mode' in inspect.signature(model.forward).parameters
        self._recorder = Recorder(model, self.taps, caller=caller)
        self._call = self._run
        if compiler:
            self._call = torch.compile(self._run, **(compiler if isinstance(compiler, Mapping) else {}))
        self._is_checked = False
        self.stops_early = not compiler

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FrozenTeacher':
        """Return the teacher itself: it never changes, so copies of its student (EMA) share it."""
        return self

    def to(self, device: torch.device | str) -> 'FrozenTeacher':
        """Move the model; the student's device is the right one."""
        self.model.to(device)
        if isinstance(self.adapt, InputAdapter):
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
            ValueError: The teacher wants other channels than ``inputs`` have, or another size; or in the first call:
                inputs that are normalized already.
        """
        if not self._has_mode:
            args, kwargs = (), {}
        stop_early = self._is_checked and self.stops_early
        with torch.no_grad(), self._recorder.record(stop_early) as features:
            images = inputs if self.adapt is None or not getattr(self.adapt, 'is_needed', True) else self.adapt(inputs)
            if not self._is_checked and isinstance(self.adapt, InputAdapter):
                self.adapt.check(inputs)
            try:
                self._call(images, *args, **kwargs)
            except AllTapsFired:
                pass
            except AssertionError as error:
                raise ValueError(
                    f'{self.caller}: expected images that its {type(self.model).__name__} takes but the student gets '
                    f'{_shapes(images)}, and the model says: {error or "nothing"}; resize them for it with '
                    'input_size=..., or build it for this size, as timm=dict(name=..., img_size=...) does'
                ) from error
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
                    f'{self.caller}: expected inputs of {stem.in_channels} channels but the student gets images of '
                    f'shape {tuple(view.shape)}; use a teacher for the same kind of images'
                ) from error


def _shapes(images: Any) -> str:
    views = images if isinstance(images, (list, tuple)) else [images]
    return ' and '.join(str(tuple(getattr(view, 'shape', ()))) for view in views)
