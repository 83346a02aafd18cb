"""What a user asks for, what to train on the images of somebody else, and the folder in which all of it lies.

Size, colour and number of the images decide (:class:`Recipe`); what follows from it is in
:mod:`mmkd_ext.discover.stage_configs`. All that a discovery leaves is in one :class:`OutFolder`, whole or not at all.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.hooks.model_hooks import check_pretrained
from mmkd_ext.io import write_text
from mmkd_ext.models.build import read_config
from mmkd_ext.ops.arguments import near_misses
from mmkd_ext.pictures import read_square
from mmkd_ext.registry import MODELS

__all__ = [
    'LARGE_BACKBONE',
    'Options',
    'OutFolder',
    'Recipe',
    'choose_recipe',
    'given_number',
    'read_backbone',
]

LARGE_BACKBONE = 'resnet18_8xb32_in1k'
"""Model of mmpretrain for images of more than 64 pixels."""

Settings = dict[str, Any]

_SMALL = 64
_LARGE_SIDE, _LARGE_CROP = 256, 224
_IMAGES_SEEN = 100_000
"""Images that a network for small images sees in a stage, in 20 to 80 epochs."""
_LARGE_EPOCHS = 20
_BATCH = 128
_MEASURED = 1000


@dataclass(frozen=True)
class Options:
    """What a user asks for.

    Attributes:
        labelled: Folder or CSV of labelled images.
        unlabelled: Folder or CSV of the others.
        num_novel: Number of novel classes; ``None`` to estimate it.
        assign_to: Classes that unlabelled images may be of, ``'novel'``, ``'all'``, or ``'auto'`` to look.
        backbone: Name of a model of mmpretrain, or config file; by the size of the images if ``None``.
        checkpoint: Weights of the backbone; random ones if ``None``.
        epochs: Of each stage; by the number of images if ``None``.
        config: Config file in place of the generated one of Cr-KD.
        seed: Of all stages.
        batch_size: Images in a batch, at most; by the number of images if ``None``.
    """

    labelled: str
    unlabelled: str
    num_novel: int | None = None
    assign_to: str = 'auto'
    backbone: str | None = None
    checkpoint: str | None = None
    epochs: int | None = None
    config: str | None = None
    seed: int = 0
    batch_size: int | None = None

    def check(self, out: Path) -> None:
        """Look for what can be known to be wrong before an image is read, in the words of the command.

        Args:
            out: Folder of the results, absolute.

        Raises:
            FileNotFoundError: A file or folder is not there.
            KeyError: There is no such backbone.
            PermissionError: Results cannot be written.
            ValueError: A number is out of range, or the results would lie among the images.
        """
        for name, value, least, most in (
            ('--epochs', self.epochs, 1, None),
            ('--num-novel', self.num_novel, 1, None),
            ('--batch-size', self.batch_size, 2, None),
            ('--seed', self.seed, 0, 2**32 - 1),
        ):
            if value is not None and not least <= value <= (value if most is None else most):
                raise ValueError(
                    f'{name}: expected a number of at least {least}{f" and at most {most}" if most else ""} but got '
                    f'{value}; change it'
                )
        for kind, place in (('labelled', self.labelled), ('unlabelled', self.unlabelled)):
            if not os.path.exists(place):
                raise FileNotFoundError(
                    f'discover: expected a folder or CSV of {kind} images but found none at {place}; correct the path'
                )
            inside = Path(place).resolve()
            if inside.is_dir() and out.is_relative_to(inside):
                raise ValueError(
                    f'--out: expected a folder outside of the images but {out} lies in {inside}, where the results '
                    'would be looked through as images; name another one'
                )
        parent = next(parent for parent in (out, *out.parents) if parent.exists())
        if not os.access(parent, os.W_OK):
            raise PermissionError(f'--out: expected a folder that can be written but got {out}; choose another')
        if self.checkpoint is not None and '://' not in self.checkpoint and not Path(self.checkpoint).is_file():
            raise FileNotFoundError(
                f'--checkpoint: expected a file or an address but found none at {self.checkpoint}; correct the path'
            )
        if self.backbone is not None:
            read_backbone(self.backbone)
        if self.config is not None:
            given_number(self.config)


def given_number(config: str) -> int:
    """Return the number of novel classes in a config of Cr-KD.

    Args:
        config: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not say.
    """
    model = read_config(config).get('model') or {}
    number = (model.get('novel_head') or {}).get('num_classes')
    if not isinstance(number, int) or number < 1:
        raise ValueError(
            f'--config: expected model.novel_head.num_classes, a number of at least 1, in {config} but got {number!r}; '
            'begin with a copy of configs/discovery.py of a discovery'
        )
    return number


# --------------------------------------------------------------------------------------------------
# What to train.


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
        batch_size: Images in a batch of stage one.
        contrast_batch_size: Images in a batch of the representation.
        discovery_batch_size: Images in a batch of discovery; ``None`` for ``batch_size``.
        labelled_per_batch: Labelled ones among these, again and again where they are few; ``None`` to let chance
            decide.
        value_range: What is black and white in images of more than 8 bits.
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
    discovery_batch_size: int | None = None
    labelled_per_batch: int | None = None
    value_range: dict[str, list[float]] | None = None

    @property
    def is_pretrained(self) -> bool:
        """Whether the backbone starts with weights."""
        return 'init_cfg' in self.backbone


def choose_recipe(
    images: FolderImages,
    backbone: str | None = None,
    checkpoint: str | None = None,
    epochs: int | None = None,
    max_batch_size: int | None = None,
) -> Recipe:
    """Choose what suits most images, by the median of their shorter sides.

    Up to 64 pixels: a small network of convolutions from scratch, images in memory. More: mmpretrain's ResNet-18 on
    224 x 224 pixels. A named backbone gets 224 x 224 pixels, too.

    Args:
        images: What was found.
        backbone: Name of a model of mmpretrain, or config file of a classifier; by size if ``None``.
        checkpoint: Weights of the backbone, a file or address; ``None`` for random ones.
        epochs: Of each stage; by the number of images if ``None``.
        max_batch_size: Images in a batch, at most.

    Raises:
        KeyError: mmpretrain has no such model.
        RuntimeError: The checkpoint is a file that does not have all weights of the backbone.
    """
    median = int(np.median(images.short_sides))
    num_images = len(images.paths)
    shared: dict[str, Any] = {
        'is_photo': not images.are_grey,
        'contrast_batch_size': min(256, num_images, max_batch_size or num_images),
        'value_range': images.value_range or None,
        **_batches(sum(label >= 0 for label in images.labels), num_images, max_batch_size or _BATCH),
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
        named['backbone']['init_cfg'] = _init_cfg(named['backbone'], checkpoint)
    return Recipe(
        side=_LARGE_SIDE, crop=_LARGE_CROP, in_memory=False, epochs=epochs or _LARGE_EPOCHS, **named, **shared
    )


def _batches(num_labelled: int, num_images: int, most: int) -> dict[str, Any]:
    """Sizes of the batches of stage one, which sees labelled images alone, and of discovery.

    Where labelled images are few, their number would make batches of discovery so small that no assignment of theirs
    means anything. There it is a quarter of all images, so that an epoch has some steps, and each batch gets its share
    of labelled ones, an eighth of it at the least as far as they reach.
    """
    most = min(most, _BATCH)
    batch_size = max(2, min(most, num_labelled))
    discovery = min(most, num_images // 4)
    if discovery <= batch_size:
        return {'batch_size': batch_size}
    share = max(round(discovery * num_labelled / num_images), discovery // 8, 1)
    return {
        'batch_size': batch_size,
        'discovery_batch_size': discovery,
        'labelled_per_batch': min(num_labelled, share),
    }


def _init_cfg(backbone: Mapping[str, Any], checkpoint: str) -> Settings:
    """What initialises a backbone from the checkpoint of a classifier, or of a backbone alone.

    mmengine would go on with random weights where they do not fit; an address is looked at when training begins.
    """
    pretrained = {'type': 'Pretrained', 'checkpoint': checkpoint}
    if not Path(checkpoint).is_file():
        return {**pretrained, 'prefix': 'backbone.'}
    content = load_checkpoint_safely(checkpoint)
    names = content.get('state_dict', content)
    if any(name.startswith('backbone.') for name in names):
        pretrained['prefix'] = 'backbone.'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(dict(backbone))
    check_pretrained('backbone', network, pretrained, caller='--checkpoint')
    return pretrained


def _channel_statistics(images: FolderImages, side: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of red, green and blue over some of the images."""
    chosen = np.linspace(0, len(images.paths) - 1, min(len(images.paths), _MEASURED)).round().astype(int)
    pixels = np.concatenate(
        [read_square(images.paths[index], side, images.value_range).reshape(-1, 3) for index in chosen.tolist()]
    )
    mean, std = pixels.mean(axis=0), np.maximum(pixels.std(axis=0), 1.0)
    return mean.round(1).tolist(), std.round(1).tolist()


def read_backbone(name: str) -> Config:
    """Return the config of a classifier, whose backbone is meant.

    Args:
        name: Of a model of mmpretrain, or a config file.

    Raises:
        FileNotFoundError: There is no such file.
        KeyError: mmpretrain has no such model.
        ValueError: The config has no backbone.
    """
    cfg = read_config(name) if Path(name).suffix == '.py' else _hub_config(name)
    if 'backbone' not in cfg.get('model', {}):
        raise ValueError(f'--backbone: expected a config with model.backbone but {name} has {sorted(cfg)}')
    return cfg


def _named_backbone(name: str) -> Settings:
    """Backbone, neck, number of features and normalisation of a classifier."""
    cfg = read_backbone(name)
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
        hint = near_misses(name, names) or 'list_models() of mmpretrain.apis has them all'
        raise KeyError(f'--backbone: expected a model of mmpretrain or a config file but got {name!r}; {hint}')
    return ModelHub.get(name).config


# --------------------------------------------------------------------------------------------------
# The folder.


@dataclass(frozen=True)
class OutFolder:
    """Paths in the folder, and their reading and writing. A file that is there is complete.

    Attributes:
        root: The folder, absolute.
    """

    root: Path

    @property
    def images(self) -> Path:
        """What was found, read by :class:`mmkd_ext.datasets.ListedImages`."""
        return self.root / 'images.json'

    def check(self, options: Mapping[str, Any], resume: bool) -> None:
        """Look whether a discovery may begin here, or go on.

        Nothing is written. A start that failed before it came to :meth:`claim` is no discovery.

        Args:
            options: What a user asks for.
            resume: Whether a discovery with the same options may be there.

        Raises:
            FileExistsError: There is a discovery in the folder already, and ``resume`` is off.
            ValueError: It is one with other options.
        """
        if self.root.exists() and not self.root.is_dir():
            raise FileExistsError(
                f'discover: expected a folder for the results but {self.root} is a file; choose --out'
            )
        earlier = self.read_json('options') if self.images.is_file() else None
        if earlier is None:
            return
        if not resume:
            raise FileExistsError(
                f'discover: expected an empty folder but {self.root} has a discovery; add --resume to go on with it, '
                'or choose another by --out'
            )
        changed = [name for name, value in options.items() if earlier.get(name) != value]
        if changed:
            raise ValueError(
                f'discover: expected the options of the discovery in {self.root} but {changed} differ; repeat the '
                'command with --resume added, or choose another folder by --out'
            )

    def claim(self, options: Mapping[str, Any], images: FolderImages, recipe: 'Recipe') -> None:
        """Make the folder if need be, and write what the discovery in it begins with, the list of images last."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.write_json('options', dict(options))
        self.write_json('recipe', asdict(recipe))
        self.write_images(images)

    def config(self, stage: str) -> Path:
        """Config of a stage."""
        return self.root / 'configs' / f'{stage}.py'

    def work_dir(self, stage: str) -> Path:
        """Logs and checkpoints of a stage."""
        return self.root / stage

    def checkpoint(self, stage: str) -> Path:
        """Last checkpoint of a stage that has its config."""
        return self.work_dir(stage) / f'epoch_{Config.fromfile(self.config(stage)).train_cfg.max_epochs}.pth'

    def write_json(self, name: str, content: Any) -> None:
        """Write ``<name>.json``. Names that are no Unicode come back as they were: json escapes them."""
        write_text(self.root / f'{name}.json', json.dumps(content, indent=1))

    def read_json(self, name: str) -> Any:
        """Read ``<name>.json``; ``None`` if there is none."""
        path = self.root / f'{name}.json'
        return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None

    def write_images(self, images: FolderImages) -> None:
        """Write the list of images, with the folder from where its paths are seen."""
        self.write_json('images', {'folder': str(Path.cwd()), **asdict(images)})

    def read_images(self) -> FolderImages | None:
        """Read the list of images; ``None`` if there is none."""
        content = self.read_json('images')
        if content is None:
            return None
        content.pop('folder')
        pairs = {name: [tuple(entry) for entry in content.get(name, ())] for name in ('broken', 'ignored')}
        return FolderImages(**{**content, **pairs})

    def read_recipe(self) -> Recipe | None:
        """Read the recipe; ``None`` if there is none."""
        content = self.read_json('recipe')
        return None if content is None else Recipe(**content)

    def write_config(self, stage: str, settings: dict[str, Any]) -> None:
        """Write the config of a stage, unless there is one: a person may have changed it."""
        path = self.config(stage)
        if path.is_file():
            return
        path.parent.mkdir(exist_ok=True)
        write_text(path, Config(settings).pretty_text)
