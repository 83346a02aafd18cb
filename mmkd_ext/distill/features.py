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
from torch.nn.functional import interpolate

from mmkd_ext.ops.arguments import near_misses

__all__ = [
    'AllTapsFired',
    'FeatureSource',
    'FrozenTeacher',
    'InputAdapter',
    'Normalization',
    'Recorder',
    'Tap',
    'call_of',
    'normalization_of',
    'reverses_channels',
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
        stop_early = self._is_checked and not self._is_compiled
        with torch.no_grad(), self._recorder.record(stop_early) as features:
            images = inputs if self.adapt is None else self.adapt(inputs)
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


# --------------------------------------------------------------------------------------------------
# Turns a batch that was prepared for the student into one that suits the teacher.


@dataclass(frozen=True)
class Normalization:
    """How pixels become inputs: ``(pixel - mean) / std`` per channel.

    Attributes:
        mean: Per channel, or one for all, in the units of the pixels (0 to 255), in the order of channels that the
            model sees.
        std: Likewise.
        flips_channels: Whether the channels are reversed first (BGR, as OpenCV decodes, to RGB, or back).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    flips_channels: bool = False

    def then(self, step: 'Normalization') -> 'Normalization':
        """Return what both do, first this and then ``step``, whose units are the values that this one makes."""
        num_channels = max(len(values) for values in (self.mean, self.std, step.mean, step.std))
        mean, std, step_mean, step_std = (
            values * (num_channels // len(values)) for values in (self.mean, self.std, step.mean, step.std)
        )
        if step.flips_channels:
            mean, std = mean[::-1], std[::-1]
        return Normalization(
            tuple(m + s * n for m, s, n in zip(mean, std, step_mean, strict=True)),
            tuple(s * t for s, t in zip(std, step_std, strict=True)),
            self.flips_channels != step.flips_channels,
        )


def reverses_channels(preprocessor: Any) -> bool:
    """Whether a data preprocessor of OpenMMLab reverses the channels of its images; False for none."""
    # The names of the same switch here, in mmpretrain, and in mmengine and mmseg.
    return any(getattr(preprocessor, name, False) for name in ('to_rgb', '_channel_conversion', 'channel_conversion'))


def normalization_of(preprocessor: Any) -> Normalization | None:
    """Return what a data preprocessor of OpenMMLab does to pixels; None for none, or one that does nothing to them."""
    flips, mean = reverses_channels(preprocessor), getattr(preprocessor, 'mean', None)
    if mean is None:
        return Normalization(flips_channels=True) if flips else None
    return Normalization(tuple(mean.flatten().tolist()), tuple(preprocessor.std.flatten().tolist()), flips)


NORMALIZE_ONCE = (
    'move the normalization of the student into its data_preprocessor, or give the teacher mean=None and std=None if '
    "it was trained on the student's"
)
"""What to do where it is not known how the inputs of a student were normalized."""


class InputAdapter:
    r"""Undoes the student's normalization, applies the teacher's, and resizes.

    .. math:: y = (x \sigma_S + \mu_S - \mu_T) / \sigma_T

    in float32. It is linear, so it also suits batches that were mixed (Mixup, CutMix). Where the student's batch was
    padded after its normalization, the padding gets another value than the teacher's own would.

    Args:
        student: What was done to the batch.
        teacher: What the teacher was trained with; None: it takes the batch as it is.
        size: Height and width of the teacher's inputs; None: the student's.
        caller: Name of the teacher in messages.
        expects_pixels: Whether nobody knows of a normalization of the student's: :meth:`check` then looks at values.

    Raises:
        ValueError: The two normalizations are of different numbers of channels, or a number makes no sense.
    """

    fingerprint_name = 'mmkd_ext.distill.inputs.InputAdapter'  # as caches of version 0.1 know it

    def __init__(
        self,
        student: Normalization,
        teacher: Normalization | None = None,
        size: tuple[int, int] | None = None,
        caller: str = 'teacher',
        expects_pixels: bool = False,
    ) -> None:
        self.caller = caller
        self.expects_pixels = expects_pixels
        self.size = size
        teacher = teacher or student
        channels = {len(values) for values in (student.mean, student.std, teacher.mean, teacher.std)} - {1}
        if len(channels) > 1:
            raise ValueError(
                f'{caller}: expected the number of channels of the student, mean {student.mean}, but got mean '
                f'{teacher.mean}, std {teacher.std}; use a teacher for the same kind of images'
            )
        if min(teacher.std) <= 0 or (size is not None and min(size) < 1):
            raise ValueError(f'{caller}: expected std and size > 0 but got std {teacher.std}, size {size}')
        self.flips_channels = student.flips_channels != teacher.flips_channels
        mean_S, std_S, mean_T, std_T = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
            for values in (student.mean, student.std, teacher.mean, teacher.std)
        )
        if self.flips_channels:
            mean_S, std_S = mean_S.flip(1), std_S.flip(1)
        self._scale = (std_S / std_T).float()
        self._shift = ((mean_S - mean_T) / std_T).float()
        self.renormalizes = bool((self._scale != 1).any() or (self._shift != 0).any())

    def to(self, device: torch.device | str) -> 'InputAdapter':
        """Move the statistics to where the batches are."""
        self._scale, self._shift = self._scale.to(device), self._shift.to(device)
        return self

    def __call__(self, inputs: Any) -> Any:
        """Adapt a batch.

        Args:
            inputs: Float images of shape (N, C, H, W), or a list of such views, each of its own size.

        Returns:
            The same structure and dtype; ``inputs`` itself where there is nothing to do.

        Raises:
            TypeError: ``inputs`` are no batches of images.
            ValueError: They have other channels than the teacher.
        """
        if not (self.flips_channels or self.renormalizes or self.size):
            return inputs
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            return [self._adapt(view) for view in inputs]
        return self._adapt(inputs)

    def check(self, inputs: Any) -> None:
        """Refuse a batch that seems to be normalized where that of the teacher would come on top.

        Args:
            inputs: As in a call.

        Raises:
            ValueError: Values that should be those of pixels are negative, or fractions up to 1 while the teacher's std
                is in units of 0 to 255.
        """
        if not (self.expects_pixels and self.renormalizes):
            return
        views = inputs if isinstance(inputs, Sequence) else [inputs]
        low, high = min(float(view.min()) for view in views), max(float(view.max()) for view in views)
        has_fractions = any(bool((view != view.round()).any()) for view in views)
        if low < 0 or (has_fractions and high <= 1 < 0.1 / float(self._scale.max())):
            raise ValueError(
                f'{self.caller}: expected pixels of 0 to 255, as the data preprocessor of the student does not '
                f'normalize them, but got values from {low:.2f} to {high:.2f}, which the normalization of the teacher '
                f'would distort; {NORMALIZE_ONCE}'
            )

    def __str__(self) -> str:
        """Say in a few words what is done, as the start-up report shows it."""
        steps = {
            'own normalization': self.renormalizes,
            'channels reversed': self.flips_channels,
            f'resized to {self.size}': self.size is not None,
        }
        return ', '.join(step for step, is_done in steps.items() if is_done) or "the student's"

    def _adapt(self, x_NCHW: Any) -> Tensor:
        if not isinstance(x_NCHW, Tensor) or x_NCHW.ndim != 4 or not x_NCHW.is_floating_point():
            found = f'{x_NCHW.dtype} of shape {tuple(x_NCHW.shape)}' if isinstance(x_NCHW, Tensor) else type(x_NCHW)
            raise TypeError(
                f'{self.caller}: expected float images (N, C, H, W), or a list of them, to adapt to the teacher but '
                f"got {found}; give the teacher the student's normalization and size"
            )
        if self._shift.shape[1] not in (1, x_NCHW.shape[1]):  # broadcasting would make up channels
            raise ValueError(
                f'{self.caller}: expected inputs of {self._shift.shape[1]} channels but the student gets images of '
                f'shape {tuple(x_NCHW.shape)}; use a teacher for the same kind of images'
            )
        y_NCHW = x_NCHW.float()
        if self.flips_channels:
            y_NCHW = y_NCHW.flip(1)
        if self.renormalizes:
            y_NCHW = torch.addcmul(self._shift, y_NCHW, self._scale)
        if self.size:
            y_NCHW = interpolate(y_NCHW, self.size, mode='bilinear', align_corners=False, antialias=True)
        return y_NCHW.to(x_NCHW.dtype)
