"""Images per second that each data path of novel class discovery prepares: CIFAR-100, two large and two small views."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmkd_ext.datasets.array_dataset import ArrayDataset
from mmkd_ext.registry import DATASETS, MODELS

__all__ = ['measure_data']

_CONFIGS = Path(__file__).parents[1] / 'configs' / 'uno'
_PATHS = {
    'image by image (PIL)': 'uno_resnet18_500e_cifar100-20.py',
    'whole batches on the device': 'uno_resnet18_500e_cifar100-20_on-device.py',
}
_BATCH = 512


@DATASETS.register_module()
class NoiseImages(ArrayDataset):
    """As many images of CIFAR size as asked for, of 100 classes.

    Args:
        num_images: Images.
        **kwargs: As in the base class.
    """

    def __init__(self, num_images: int, **kwargs: Any) -> None:
        self.num_images = num_images
        super().__init__(**kwargs)

    def load_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images (N, 32, 32, 3) and labels (N,)."""
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (self.num_images, 32, 32, 3), dtype=np.uint8)
        return images, np.arange(self.num_images) % 100


def measure_data(num_images: int, device: torch.device) -> Iterator[dict[str, float | str]]:
    """Load, augment and normalize an epoch of noise with the shipped configs, without a network.

    In one process, so that figures of a CPU are those of one core.

    Args:
        num_images: Images of the data set, each of which becomes four views; at least 512, one batch.
        device: Where batches are needed.

    Yields:
        Path and images per second.
    """
    init_default_scope('mmpretrain')
    for path, config in _PATHS.items():
        cfg = Config.fromfile(_CONFIGS / config)
        loader = cfg.train_dataloader
        loader.update(num_workers=0, persistent_workers=False, batch_size=_BATCH)
        _replace_images(loader, num_images)
        yield {'path': path, 'images per second': _images_per_second(cfg, device)}


def _images_per_second(cfg: Config, device: torch.device) -> float:
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    preprocessor = MODELS.build(cfg.model.data_preprocessor).to(device)
    clock = time.perf_counter if device.type == 'cuda' else time.process_time
    hub = MessageHub.get_current_instance()
    hub.update_info('seed', 0)
    began, count = clock(), 0
    for iteration, batch in enumerate(loader):
        hub.update_info('iter', iteration)
        count += len(preprocessor(batch, training=True)['data_samples'])
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return count / (clock() - began)


def _replace_images(settings: dict, num_images: int) -> None:
    """Put noise where the innermost data set is, with the pipeline that it has."""
    dataset = settings['dataset']
    if 'dataset' in dataset:
        _replace_images(dataset, num_images)
    else:
        settings['dataset'] = dict(type='mmkd_ext.NoiseImages', num_images=num_images, pipeline=dataset['pipeline'])
