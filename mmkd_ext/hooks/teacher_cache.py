"""Gives a teacher a cache, where the same sample always looks the same."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from torch import nn

from mmkd_ext.distill import CachedTeacher, FeatureStore, FrozenTeacher, fingerprint, model_fingerprint
from mmkd_ext.hooks.identity import sample_digests, view_fingerprint
from mmkd_ext.hooks.restart import student_of

__all__ = ['DETERMINISTIC_TRANSFORMS', 'build_cached_teacher']

DETERMINISTIC_TRANSFORMS = {
    *('LoadImageFromFile', 'LoadAnnotations', 'NumpyToPIL', 'PILToNumpy', 'ToPIL', 'ToNumpy'),
    *('Resize', 'ResizeEdge', 'CenterCrop', 'EfficientNetCenterCrop', 'Pad', 'Normalize'),
    *('ToTensor', 'ImageToTensor', 'Collect', 'PackInputs', 'PackSegInputs', 'PackDetInputs'),
    *('torchvision/Resize', 'torchvision/CenterCrop', 'torchvision/Pad', 'torchvision/Grayscale'),
    *('torchvision/Normalize', 'torchvision/ToTensor', 'torchvision/PILToTensor', 'torchvision/ToPILImage'),
    'torchvision/ConvertImageDtype',
}
"""Names of the transforms whose result depends on nothing but the sample; add a transform of your own if that holds."""


def build_cached_teacher(runner: Runner, teacher: FrozenTeacher, folder: str | Path) -> CachedTeacher:
    """Return a teacher that reads features from ``folder``, filling it in the first epoch.

    The folder belongs to one teacher, its taps, one data set and one view of it; anything else is refused. The view is
    the pipeline of the training data and the student's data preprocessor, and has to be free of chance.

    Args:
        runner: Its config names the transforms, its data set the samples, its model the data preprocessor.
        teacher: What the features are computed with.
        folder: One for each teacher.

    Raises:
        TypeError: The data set tells nothing of its samples.
        ValueError: The view is random, or may be; samples share a ``sample_idx``; or the folder was filled from
            something else. The message says which, and what to do.
    """
    loader = runner.cfg.get('train_dataloader')
    if loader is None:
        raise ValueError(
            'teacher cache: expected a runner that knows the config of its training data but got one built without; '
            'use Runner.from_cfg(cfg), or train without cache'
        )
    student = student_of(runner)
    pipelines = _pipelines(loader['dataset'])
    _check_preprocessing(student)
    num_samples, samples = _samples(runner.train_dataloader.dataset)
    identity = {
        'teacher (weights or architecture)': model_fingerprint(teacher.model),
        'set of taps': ', '.join(sorted(set(teacher.taps))),
        'data set': samples,
        'view (pipeline, preprocessing or normalization)': view_fingerprint(pipelines, student, teacher),
    }
    return CachedTeacher(teacher, FeatureStore(folder, num_samples, identity))


def _pipelines(dataset: Mapping[str, Any]) -> list[Any]:
    """Return all pipelines of a data set and the data sets that it wraps.

    Raises:
        ValueError: One has a transform that is not known to be free of chance.
    """
    pipelines = list(_find_pipelines(dataset))
    if not pipelines:
        raise ValueError(
            'teacher cache: expected a pipeline in the config of the training data but found none, so the view is '
            'unknown; train without cache'
        )
    for transform in (transform for pipeline in pipelines for transform in pipeline):
        kind = transform['type']
        name = kind.__name__ if isinstance(kind, type) else kind.rpartition('.')[2]
        if name not in DETERMINISTIC_TRANSFORMS:
            raise ValueError(
                f'teacher cache: expected a training pipeline without random transforms but got {name!r}, which is '
                f'random or unknown; a cached feature is that of another view. Train without cache, or without {name}'
            )
    return [[dict(transform) for transform in pipeline] for pipeline in pipelines]


def _find_pipelines(node: Any) -> Iterator[list[Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == 'pipeline':
                yield value
            else:
                yield from _find_pipelines(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _find_pipelines(item)


def _check_preprocessing(student: nn.Module) -> None:
    """Refuse batch augmentations.

    Raises:
        ValueError: There are some.
    """
    augments = getattr(getattr(student, 'data_preprocessor', None), 'batch_augments', None)
    if augments:
        raise ValueError(
            'teacher cache: expected a data preprocessor without batch augmentations but got '
            f'{type(augments).__name__} (Mixup, CutMix, ...), whose images are never the same; train without cache, or '
            'without them'
        )


def _samples(dataset: Any) -> tuple[int, str]:
    """Return the number of rows that the samples need, and a digest of everything that is known of each sample.

    Raises:
        TypeError: The data set tells nothing of its samples.
        ValueError: Two different ones share a ``sample_idx``.
    """
    digests: dict[int, str] = {}
    for sample, digest in sample_digests(dataset, 'teacher cache'):
        if digests.setdefault(sample, digest) != digest:
            raise ValueError(
                f'teacher cache: expected one image per sample_idx but {sample} is that of several, as in a '
                'ConcatDataset; train without cache, or make one data set of them'
            )
    return max(digests) + 1, fingerprint(digests)
