"""What becomes of the values of pixels on their way to a model: in its data pipeline, then in its data preprocessor.

Transforms are known by their names, as configs have them or as objects, so no OpenMMLab package is needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmkd_ext.distill.features import Normalization, normalization_of

__all__ = ['Pixels', 'pixels_of', 'pixels_of_dataset', 'pixels_of_pipeline']


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
