"""The teacher's features of a whole data set, once, each process computing its share."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import gather, get_comm_device, get_dist_info
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmkd_ext.distill import FrozenTeacher
from mmkd_ext.ops.maps import pool_map

__all__ = ['features_of_dataset', 'test_pipeline', 'with_pipeline']

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
    teacher: FrozenTeacher, tap: str, student: nn.Module, dataset: Dataset, loader: DataLoader, batch_size: int
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
    share = DataLoader(
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
    return features[: len(dataset)] if rank == 0 else None


def _interleave(share: torch.Tensor) -> torch.Tensor | None:
    """Return row 0 of each process, then row 1 of each, in the main process; shares are of one size."""
    rows = []
    for part in share.split(_EXCHANGED_ROWS):
        shares = gather(part.to(get_comm_device()))
        if shares:
            rows.append(torch.stack(shares, dim=1).flatten(0, 1).cpu())
    return torch.cat(rows) if rows else None


def _vectors(teacher: FrozenTeacher, tap: str, student: nn.Module, batch: Any) -> torch.Tensor:
    data = student.data_preprocessor(batch, False)
    call = data if isinstance(data, dict) else dict(zip(('inputs', 'data_samples'), data, strict=False))
    feature = teacher.features(**{**call, 'mode': 'tensor'})[tap]
    return pool_map(feature.float()).cpu()
