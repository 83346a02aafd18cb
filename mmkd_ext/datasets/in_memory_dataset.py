"""A data set that is one tensor, and hands out whole batches of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, default_collate
from mmengine.device import get_device
from torch.utils.data import Dataset, get_worker_info

from mmkd_ext.registry import DATASETS, FUNCTIONS
from mmkd_ext.transforms.batch import upload

_NUM_CHECKED = 16


@FUNCTIONS.register_module()
def collate_batch(batch: Mapping[str, Any] | Sequence[Any]) -> Mapping[str, Any]:
    """Return what a data set gave as a whole batch as it is; collate a list of samples as ``default_collate``.

    Args:
        batch: Of :meth:`InMemoryDataset.__getitems__`, or a list of samples.
    """
    return batch if isinstance(batch, Mapping) else default_collate(batch)


@DATASETS.register_module()
class InMemoryDataset(Dataset):
    """The images of another data set as one uint8 tensor where the model trains, and its data samples as they are.

    For data sets of small images of one size, whose pipeline has nothing to decode and leaves chance to the data
    preprocessor. Each sample is read once, at the beginning; a batch is then one look-up. Everything else is asked of
    the wrapped data set, so this goes around :class:`mmkd_ext.NovelClassSplit`. The loader needs ``num_workers=0`` and
    ``collate_fn=dict(type='mmkd_ext.collate_batch')``::

        train_dataloader = dict(
            num_workers=0, persistent_workers=False, collate_fn=dict(type='mmkd_ext.collate_batch'),
            dataset=dict(type='mmkd_ext.InMemoryDataset', dataset=dict(type='mmkd_ext.NovelClassSplit', ...)))

    Data samples are the same objects in every epoch: for training, where nothing writes into them.

    Args:
        dataset: Data set or config, whose pipeline ends with PackInputs and has no random transform.
        device: Where the images are kept; None for the device that mmengine trains on. CIFAR takes 154 MB.

    Raises:
        TypeError: If samples have no uint8 ``inputs`` (C, H, W), such as several views.
        ValueError: If images differ in shape, or the same sample looks different when read again.
    """

    def __init__(self, dataset: Mapping[str, Any] | BaseDataset, device: str | None = None) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        self.dataset.full_init()
        samples = [self.dataset[index] for index in range(len(self.dataset))]
        images = [_image(sample, type(self.dataset).__name__) for sample in samples]
        _check_alike(images, [self.dataset[index]['inputs'] for index in range(min(len(samples), _NUM_CHECKED))])
        self.device = torch.device(device or get_device())
        self.images = torch.stack(images).to(self.device)
        self.data_samples = [sample.get('data_samples') for sample in samples]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one sample, ``dict(inputs=(C, H, W) uint8, data_samples=...)``."""
        return {'inputs': self.images[index], 'data_samples': self.data_samples[index]}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return a whole batch, which torch's loader asks for if it can.

        Args:
            indices: B indices.

        Returns:
            ``inputs`` (B, C, H, W) uint8, and ``data_samples``, a list of B.

        Raises:
            RuntimeError: In a worker process, if the images are on an accelerator.
        """
        if get_worker_info() is not None and self.device.type != 'cpu':
            raise RuntimeError(
                f'InMemoryDataset: expected to be read in the main process, as its images are on {self.device}, but '
                "got a worker; set num_workers=0 and persistent_workers=False, or device='cpu'"
            )
        chosen = np.asarray(indices, dtype=np.int64)
        return {
            'inputs': self.images[upload(chosen, self.device)],
            'data_samples': [self.data_samples[index] for index in chosen.tolist()],
        }

    def __getattr__(self, name: str) -> Any:
        """Look anything else up in the wrapped data set."""
        if name == 'dataset':  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _image(sample: Any, name: str) -> torch.Tensor:
    image = sample.get('inputs') if isinstance(sample, Mapping) else None
    if not isinstance(image, torch.Tensor) or image.dtype != torch.uint8 or image.dim() != 3:
        found = f'{image.dtype} {tuple(image.shape)}' if isinstance(image, torch.Tensor) else type(image).__name__
        raise TypeError(
            f"InMemoryDataset over {name}: expected uint8 images (C, H, W) as 'inputs' but got {found}; let the "
            "pipeline be dict(type='PackInputs') alone, and make views by batch_augments of the data preprocessor"
        )
    return image


def _check_alike(images: Sequence[torch.Tensor], again: Sequence[torch.Tensor]) -> None:
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) != 1:
        raise ValueError(
            f'InMemoryDataset: expected images of one shape but got {shapes or "no image"}; resize them in the pipeline'
        )
    if not all(torch.equal(*pair) for pair in zip(images, again, strict=False)):
        raise ValueError(
            'InMemoryDataset: expected a pipeline without chance but got another image when a sample was read again; '
            'move random transforms to batch_augments of the data preprocessor'
        )
