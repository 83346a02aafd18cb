"""How pixels become inputs: in the student's data pipeline and preprocessor, and then for the teacher from its batch.

Transforms are known by their names, as configs have them or as objects, so no OpenMMLab package is needed.
Shape suffixes: N images, C channels, H x W pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = [
    'NORMALIZE_ONCE',
    'InputAdapter',
    'Normalization',
    'Pixels',
    'normalization_of',
    'pixels_of',
    'pixels_of_dataset',
    'pixels_of_pipeline',
    'reverses_channels',
]


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
        self.is_needed = bool(self.flips_channels or self.renormalizes or self.size)

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
        if not self.is_needed:
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


# --------------------------------------------------------------------------------------------------
# What data pipelines do to pixels.


@dataclass(frozen=True)
class Pixels:
    """What is known of the values that a model gets.

    Attributes:
        normalization: How they were made from those of the image.
        doubt: Why that is not known, in words that follow "but"; empty if it is.
    """

    normalization: Normalization = field(default_factory=Normalization)
    doubt: str = ''

    @property
    def are_raw(self) -> bool:
        """Whether they are, as far as one knows, those of the image."""
        return self.normalization == Normalization(flips_channels=self.normalization.flips_channels)

    def then(self, step: Normalization | None) -> 'Pixels':
        """Return the values after one more step."""
        return self if step is None else Pixels(self.normalization.then(step), self.doubt)


def pixels_of(preprocessor: Any, dataset: Any = None) -> Pixels:
    """Return what a model with this data preprocessor gets of the samples of a data set.

    Args:
        preprocessor: That of the model, or None.
        dataset: A data set whose pipeline is looked at, also within wrappers; None: samples come as they are.
    """
    return pixels_of_dataset(dataset).then(normalization_of(preprocessor))


def pixels_of_dataset(dataset: Any) -> Pixels:
    """Return what the pipelines of a data set, or of its config, make of pixels."""
    found = [pixels_of_pipeline(pipeline) for pipeline in _pipelines(dataset)]
    if any(pixels != found[0] for pixels in found):
        doubt = next((pixels.doubt for pixels in found if pixels.doubt), '')
        return Pixels(doubt=doubt or 'the data sets within its data set normalize images in different ways')
    return found[0] if found else Pixels()


def pixels_of_pipeline(pipeline: Any, *, are_bytes: bool = True) -> Pixels:
    """Return what a list of transforms, objects or their configs, makes of pixels.

    Known are mmcv's ``Normalize``, torchvision's ``ToTensor``, ``ConvertImageDtype``, ``ToDtype`` and ``Normalize``,
    changes of the order of channels in ``NumpyToPIL`` and ``PILToNumpy``, and lists of transforms within others.

    Args:
        pipeline: The transforms, or an object that has them as ``transforms``.
        are_bytes: Whether it gets images of bytes, which torchvision scales to [0, 1] where it makes floats of them.
    """
    pixels = Pixels()
    for transform in getattr(pipeline, 'transforms', pipeline) or ():
        name, get = _read(transform)
        inner = _lists_in(transform)
        if name in ('Normalize', 'torchvision/Normalize'):
            flips = bool(get('to_rgb', True)) and name == 'Normalize'
            pixels = pixels.then(Normalization(_numbers(get('mean')), _numbers(get('std')), flips))
            are_bytes = False
        elif name in _TO_FLOAT and 'int' not in str(get('dtype', 'float')) and get('scale', True):
            pixels = pixels.then(Normalization(std=(255.0,)) if are_bytes else None)
            are_bytes = False
        elif name == 'LoadImageFromFile' and get('to_float32', False):
            are_bytes = False
        elif name in ('NumpyToPIL', 'ToPIL', 'PILToNumpy', 'ToNumpy'):
            reverses = get('to_rgb', False) or get('to_bgr', False)
            pixels = pixels.then(Normalization(flips_channels=True) if reverses else None)
        elif inner:
            found = [pixels_of_pipeline(steps, are_bytes=are_bytes) for steps in inner]
            if any(step != Pixels() for step in found) and (
                name not in _ALWAYS or any(step != found[0] for step in found)
            ):
                return Pixels(
                    pixels.normalization, f'{name} in its data pipeline normalizes some images and not others'
                )
            pixels = Pixels(pixels.normalization.then(found[0].normalization), pixels.doubt or found[0].doubt)
            are_bytes &= found[0].are_raw
        elif 'ormaliz' in name:
            return Pixels(pixels.normalization, f'{name} in its data pipeline normalizes in a way that is not known')
    return pixels


_TO_FLOAT = {'torchvision/ToTensor', 'torchvision/ConvertImageDtype', 'torchvision/ToDtype'}
_ALWAYS = {'MultiView', 'Compose'}
"""Transforms that apply all that they contain."""


def _pipelines(dataset: Any) -> Iterator[Any]:
    """Yield all pipelines of a data set, and of those that it wraps."""
    if type(dataset) in (list, tuple):  # not a data set that is a list
        for part in dataset:
            yield from _pipelines(part)
        return
    inside = dataset if isinstance(dataset, Mapping) else getattr(dataset, '__dict__', {})
    for name in ('pipeline', 'transform'):  # the latter of torchvision's data sets
        if name in inside and not isinstance(inside[name], str):
            yield inside[name]
    for name in ('dataset', '_dataset', 'datasets'):
        if name in inside:
            yield from _pipelines(inside[name])


def _read(transform: Any) -> tuple[str, Any]:
    """Return the name of a transform, and how to ask for its settings."""
    if isinstance(transform, Mapping):
        kind = transform.get('type', '')
        name = kind if isinstance(kind, str) else kind.__name__
        return name.rpartition('.')[2], transform.get
    wrapped = getattr(transform, 't', None)  # mmpretrain's wrapper of a transform of torchvision
    if wrapped is not None:
        return f'torchvision/{type(wrapped).__name__}', lambda key, default=None: getattr(wrapped, key, default)
    module = type(transform).__module__
    name = type(transform).__name__
    place = 'torchvision/' if module.startswith('torchvision.') else ''
    return f'{place}{name}', lambda key, default=None: getattr(transform, key, default)


def _lists_in(transform: Any) -> list[Sequence[Any]]:
    """Return the lists of transforms within a transform."""
    _, get = _read(transform)
    steps = get('transforms', None)
    steps = getattr(steps, 'transforms', steps)
    if not isinstance(steps, (list, tuple)) or not steps:
        return []
    as_lists: list[Any] = [getattr(step, 'transforms', step) for step in steps]
    if all(isinstance(step, (list, tuple)) for step in as_lists):
        return as_lists
    return [steps]


def _numbers(values: Any) -> tuple[float, ...]:
    values = values.tolist() if hasattr(values, 'tolist') else values
    return tuple(map(float, values)) if isinstance(values, (list, tuple)) else (float(values),)
