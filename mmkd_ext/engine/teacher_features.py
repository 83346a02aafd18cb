"""The teacher's features of a data set: of all samples at once, or stored from step to step and known again."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import gather, get_comm_device, get_dist_info
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmkd_ext.distill import CachedTeacher, FeatureStore, FrozenTeacher, fingerprint, model_fingerprint
from mmkd_ext.distill.features import FeatureSource, call_of
from mmkd_ext.engine.runner import student_of
from mmkd_ext.ops.maps import pool_map

_EXCHANGED_ROWS = 16384
"""Rows per process that are exchanged at once, over a GPU where the backend is nccl: its memory is the student's."""


def test_pipeline(cfg: Config, caller: str) -> list[Mapping[str, Any]]:
    """Return the pipeline of the validation data, or else of the test data, from the config of a training.

    Args:
        cfg: The config.
        caller: Who asks, for messages.

    Raises:
        ValueError: If the config has none.
    """
    for name in ('val_dataloader', 'test_dataloader'):
        dataset = (cfg.get(name) or {}).get('dataset')
        while isinstance(dataset, Mapping):
            if 'pipeline' in dataset:
                return dataset['pipeline']
            dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', ())), None)
    raise ValueError(
        f"{caller}: expected a pipeline in the config's val_dataloader or test_dataloader but found none; add one "
        'with the transforms of evaluation'
    )


def with_pipeline(dataset: Any, pipeline: Compose, caller: str) -> Any:
    """Return a view of a data set, and of all that it wraps, whose samples pass another pipeline; the data is shared.

    Args:
        dataset: The data set.
        pipeline: Its view's.
        caller: Who asks, for messages.

    Raises:
        TypeError: If there is no pipeline to replace.
    """
    view = object.__new__(type(dataset))  # copy.copy() asks mmengine's cut for attributes before it has any
    vars(view).update(vars(dataset))
    for name in ('dataset', '_dataset'):  # mmengine's wrappers, and its cut for num_batch_per_epoch
        if name in vars(dataset):
            setattr(view, name, with_pipeline(vars(dataset)[name], pipeline, caller))
            return view
    if 'datasets' in vars(dataset):
        view.datasets = [with_pipeline(part, pipeline, caller) for part in dataset.datasets]
    elif 'pipeline' in vars(dataset):
        view.pipeline = pipeline
    else:
        raise TypeError(
            f'{caller}: expected a data set with a pipeline, or a wrapper of one, but got {type(dataset).__name__}; '
            'give it a list of transforms as "pipeline", as those of mmengine have'
        )
    return view


def features_of_dataset(
    teacher: FeatureSource, tap: str, student: BaseModel, dataset: Any, loader: DataLoader, batch_size: int
) -> torch.Tensor | None:
    """Return the tapped features of all samples in the main process, None in the others.

    Process r computes samples r, r + W, r + 2 W, ... and no other: none is computed twice, whatever N.

    Args:
        teacher: Has the tap.
        tap: Name of the feature, (B, D) or a map (B, D, H, W), which is averaged over its positions.
        student: Its data preprocessor makes the inputs, without training's augmentation.
        dataset: Gives samples as the test-time pipeline makes them.
        loader: How many workers read it, and how samples become a batch.
        batch_size: Samples in one forward of the teacher.

    Returns:
        (N, D) float32 on the CPU, in the order of the data set.

    Raises:
        RuntimeError: If the tap does not fire once.
        ValueError: If the feature is neither rows nor a map.
    """
    rank, world_size = get_dist_info()
    share: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=range(rank, len(dataset), world_size),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    parts = [_vectors(teacher, tap, student, batch) for batch in share]
    own = torch.cat(parts)
    num_rows = -(-len(dataset) // world_size)
    features = _interleave(torch.nn.functional.pad(own, (0, 0, 0, num_rows - len(own))))
    return None if rank or features is None else features[: len(dataset)]


def _interleave(share: torch.Tensor) -> torch.Tensor | None:
    """Return row 0 of each process, then row 1 of each, in the main process; shares are of one size."""
    rows = []
    for part in share.split(_EXCHANGED_ROWS):
        shares = gather(part.to(get_comm_device()))
        if shares:
            rows.append(torch.stack(shares, dim=1).flatten(0, 1).cpu())
    return torch.cat(rows) if rows else None


def _vectors(teacher: FeatureSource, tap: str, student: BaseModel, batch: Any) -> torch.Tensor:
    data = student.data_preprocessor(batch, False)
    feature = teacher.features(**call_of(data, mode='tensor'))[tap]
    return pool_map(feature.float()).cpu()


# --------------------------------------------------------------------------------------------------
# What tells whether stored features of a teacher are those of this run: the samples, and how they are looked at.

_NOT_OF_THE_VIEW = {'_device', 'batch_augments', 'caller', 'expects_pixels', 'is_needed'}


def view_fingerprint(pipelines: Sequence[Any], student: nn.Module, teacher: FrozenTeacher) -> str:
    """Return a SHA-256 of all that lies between a sample and the teacher.

    Batch augmentations do not count: who stores features of training's own batches has to refuse them.

    Args:
        pipelines: Configs of the transforms.
        student: Its data preprocessor makes the inputs.
        teacher: Its adapter turns them into its own.
    """
    adapter = getattr(teacher, 'adapt', None)
    preprocessor = getattr(student, 'data_preprocessor', None)
    return fingerprint([pipelines, *(_describe(part) for part in (preprocessor, adapter))])


def sample_digests(dataset: Any, caller: str) -> Iterator[tuple[int, str]]:
    """Yield for each sample its ``sample_idx``, or its position, and a digest of all that is known of it.

    In-memory images count with their pixels, files with their path and size, and labels count too, the pipeline not.

    Args:
        dataset: A data set of mmengine.
        caller: Name of the caller in messages.

    Raises:
        TypeError: The data set tells nothing of its samples, or something without fingerprint.
    """
    if not hasattr(dataset, 'get_data_info'):
        raise TypeError(
            f'{caller}: expected a data set with get_data_info() but got {type(dataset).__name__}, whose '
            'samples cannot '
            'be told apart'
        )
    for position in range(len(dataset)):
        info = dataset.get_data_info(position)
        path = info.get('img_path') or ''
        size = os.path.getsize(path) if os.path.isfile(path) else None
        try:
            digest = fingerprint([dict(info), size])
        except TypeError as error:
            raise TypeError(f'{caller}: expected samples described by numbers, text and arrays but {error}') from error
        yield info.get('sample_idx', position), digest


def dataset_fingerprint(dataset: Any, caller: str) -> str:
    """Return a SHA-256 of all samples in their order; arguments and errors are those of :func:`sample_digests`."""
    return fingerprint([digest for _, digest in sample_digests(dataset, caller)])


def _describe(part: Any) -> dict[str, Any]:
    """Return settings and buffers of a data preprocessor or an adapter; what has no fingerprint counts by its class."""
    if part is None:
        return {}
    names = vars(part).keys() - vars(nn.Module()).keys() - _NOT_OF_THE_VIEW
    settings = {name: _plain(vars(part)[name]) for name in names}
    buffers = dict(part.named_buffers()) if isinstance(part, nn.Module) else {}
    return {'type': type(part), 'settings': settings, 'buffers': buffers}


def _plain(value: Any) -> Any:
    try:
        fingerprint(value)
    except TypeError:
        return type(value)
    return value


# --------------------------------------------------------------------------------------------------
# Gives a teacher a cache, where the same sample always looks the same.

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
