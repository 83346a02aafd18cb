"""What to train on the images of somebody else: choices by their size, colour and number."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.functional.pictures import read_square
from mmkd_ext.models.build import read_config
from mmkd_ext.registry import MODELS

__all__ = ['LARGE_BACKBONE', 'Recipe', 'choose_recipe']

LARGE_BACKBONE = 'resnet18_8xb32_in1k'
"""Model of mmpretrain for images of more than 64 pixels."""

_SMALL = 64
_LARGE_SIDE, _LARGE_CROP = 256, 224
_IMAGES_SEEN = 100_000
"""Images that a network for small images sees in a stage, in 20 to 80 epochs."""
_LARGE_EPOCHS = 20
_MEASURED = 1000


@dataclass(frozen=True)
class Recipe:
    """Choices that all stages share.

    Attributes:
        side: Pixels of the squares that are read.
        crop: Pixels of the squares that the network sees, at most ``side``.
        in_memory: Whether all images are held in memory.
        is_photo: Whether images may be mirrored, cropped and changed in colour; others are turned and shifted a bit.
        backbone: Its config, with ``init_cfg`` where it has weights already.
        neck: Pooling, or ``None`` for a backbone of vectors.
        num_features: Dimension of its features.
        mean: Of each channel, 0 to 255, in the order that the network takes.
        std: Same.
        to_bgr: Whether that order is blue, green, red.
        epochs: Epochs of each stage.
        batch_size: Images in a batch of stage one and of discovery.
        contrast_batch_size: Images in a batch of the representation.
    """

    side: int
    crop: int
    in_memory: bool
    is_photo: bool
    backbone: dict[str, Any]
    neck: dict[str, Any] | None
    num_features: int
    mean: list[float]
    std: list[float]
    to_bgr: bool
    epochs: int
    batch_size: int
    contrast_batch_size: int

    @property
    def is_pretrained(self) -> bool:
        """Whether the backbone starts with weights."""
        return 'init_cfg' in self.backbone


def choose_recipe(
    images: FolderImages, backbone: str | None = None, checkpoint: str | None = None, epochs: int | None = None
) -> Recipe:
    """Choose what suits most images, by the median of their shorter sides.

    Up to 64 pixels: a small network of convolutions from scratch, images in memory. More: mmpretrain's ResNet-18 on
    224 x 224 pixels. A named backbone gets 224 x 224 pixels, too.

    Args:
        images: What was found.
        backbone: Name of a model of mmpretrain, or config file of a classifier; by size if ``None``.
        checkpoint: Weights of the backbone, a file or address; ``None`` for random ones.
        epochs: Of each stage; by the number of images if ``None``.

    Raises:
        KeyError: mmpretrain has no such model.
    """
    median = int(np.median(images.short_sides))
    num_images = len(images.paths)
    shared = {
        'is_photo': not images.are_grey,
        'batch_size': max(2, min(128, sum(label >= 0 for label in images.labels))),  # stage one sees no others
        'contrast_batch_size': min(256, num_images),
    }
    if backbone is None and checkpoint is None and median <= _SMALL:
        side = max(median, 8)
        channels = [16, 32, 64] if side <= 12 else [32, 64, 128] if side <= 32 else [32, 64, 128, 128]
        mean, std = _channel_statistics(images, side)
        return Recipe(
            side=side,
            crop=side,
            in_memory=True,
            backbone={'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': channels},
            neck={'type': 'GlobalAveragePooling'},
            num_features=channels[-1],
            mean=mean,
            std=std,
            to_bgr=False,
            epochs=epochs or int(np.clip(round(_IMAGES_SEEN / num_images), 20, 80)),
            **shared,
        )
    named = _named_backbone(backbone or LARGE_BACKBONE)
    if checkpoint is not None:
        named['backbone']['init_cfg'] = {'type': 'Pretrained', 'checkpoint': checkpoint, 'prefix': 'backbone.'}
    return Recipe(
        side=_LARGE_SIDE, crop=_LARGE_CROP, in_memory=False, epochs=epochs or _LARGE_EPOCHS, **named, **shared
    )


def _channel_statistics(images: FolderImages, side: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of red, green and blue over some of the images."""
    chosen = np.linspace(0, len(images.paths) - 1, min(len(images.paths), _MEASURED)).round().astype(int)
    pixels = np.concatenate([read_square(images.paths[index], side).reshape(-1, 3) for index in chosen.tolist()])
    mean, std = pixels.mean(axis=0), np.maximum(pixels.std(axis=0), 1.0)
    return mean.round(1).tolist(), std.round(1).tolist()


def _named_backbone(name: str) -> dict[str, Any]:
    """Backbone, neck, number of features and normalisation of a classifier."""
    cfg = read_config(name) if Path(name).suffix == '.py' else _hub_config(name)
    backbone = dict(cfg.model.backbone)
    backbone.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.no_grad():
        network = MODELS.build(dict(backbone))
        network.eval()  # returns nothing in mmpretrain's backbones
        output = network(torch.zeros(1, 3, _LARGE_CROP, _LARGE_CROP))
    features = output[-1] if isinstance(output, (tuple, list)) else output
    normalisation = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    return {
        'backbone': backbone,
        'neck': {'type': 'GlobalAveragePooling'} if features.dim() == 4 else None,
        'num_features': features.shape[1],
        'mean': list(normalisation.get('mean') or [127.5] * 3),
        'std': list(normalisation.get('std') or [127.5] * 3),
        'to_bgr': not normalisation.get('to_rgb', False),
    }


def _hub_config(name: str) -> Config:
    from mmpretrain.apis import ModelHub, list_models

    names = list_models()
    if name not in names:
        near = difflib.get_close_matches(name, names)
        raise KeyError(f'--backbone: expected a model of mmpretrain or a config file but got {name!r}; near are {near}')
    return ModelHub.get(name).config
