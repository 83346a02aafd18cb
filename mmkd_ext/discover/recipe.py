"""What to train on the images of somebody else, and the folder in which all of it lies.

Size, colour and number of the images decide (:class:`Recipe`). From a recipe follow the configs of three stages, which
the stock Runner trains: they hold no ``_base_`` and only absolute paths, so that a file written from one is complete.
All that a discovery leaves is in one :class:`OutFolder`, whole or not at all.

Suffixes: K known classes, N novel ones.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.io import write_text
from mmkd_ext.models.build import read_config
from mmkd_ext.ops.arguments import near_misses
from mmkd_ext.pictures import read_square
from mmkd_ext.registry import MODELS

__all__ = [
    'LARGE_BACKBONE',
    'OutFolder',
    'Recipe',
    'choose_recipe',
    'discovery_config',
    'representation_config',
    'stage_one_config',
]

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
    shared: dict[str, Any] = {
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

    def claim(self, options: Mapping[str, Any], resume: bool) -> None:
        """Make the folder if need be, and note whose it is.

        Args:
            options: What a user asks for.
            resume: Whether a discovery with the same options may be there.

        Raises:
            FileExistsError: There is a discovery in the folder already, and ``resume`` is off.
            ValueError: It is one with other options.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        earlier = self.read_json('options')
        if earlier is not None and not resume:
            raise FileExistsError(
                f'discover: expected an empty folder but {self.root} has a discovery; add --resume to go on with it, '
                'or choose another by --out'
            )
        if earlier is not None and earlier != options:
            changed = [name for name, value in options.items() if earlier.get(name) != value]
            raise ValueError(
                f'discover: expected the options of the discovery in {self.root} but {changed} differ; repeat the '
                'command with --resume added, or choose another folder by --out'
            )
        self.write_json('options', options)

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
        return FolderImages(**{**content, 'broken': [tuple(entry) for entry in content['broken']]})

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


# --------------------------------------------------------------------------------------------------
# Configs of the three stages.

Settings = dict[str, Any]

_SINKHORN_ITERS = 20
"""After the usual three, the prototypes of stage one still hold novel images (docs/results/gcd.md)."""
_PACK = {'type': 'PackInputs', 'meta_keys': ('sample_idx',)}


def representation_config(recipe: Recipe, out: Path, num_known: int, seed: int) -> Settings:
    """Return the config of the contrastive representation (GCD), which sees all images.

    Args:
        recipe: What to train.
        out: Folder of the discovery, absolute.
        num_known: K.
        seed: Of the run.
    """
    head = {
        'type': 'mmkd_ext.ContrastiveHead',
        'in_channels': recipe.num_features,
        'hidden_channels': 256 if recipe.in_memory else 2048,
        'out_channels': 64 if recipe.in_memory else 256,
        'temperature': 0.3,
        'supervised_temperature': 0.3,
    }
    model = {'type': 'mmkd_ext.GCD', 'num_known': num_known, 'contrastive_head': head}
    cfg = _shared(recipe, out, 'representation', seed, subset='all')
    cfg['train_dataloader']['batch_size'] = recipe.contrast_batch_size
    return {
        **cfg,
        **_adamw(recipe.epochs, lr=3e-4 if recipe.is_pretrained else 3e-3),
        'model': {**model, **_network(recipe)},
    }


def stage_one_config(recipe: Recipe, out: Path, num_known: int, seed: int) -> Settings:
    """Return the config of the classifier of the known classes. Arguments of :func:`representation_config`."""
    return {
        **_shared(recipe, out, 'stage_one', seed, subset='labelled'),
        **_adamw(_stage_one_epochs(recipe), lr=1e-4 if recipe.is_pretrained else 1e-3),
        'model': {'type': 'mmkd_ext.NCDClassifier', **_network(recipe), 'known_head': _known_head(recipe, num_known)},
    }


def discovery_config(recipe: Recipe, out: Path, num_known: int, seed: int, num_novel: int, assign_to: str) -> Settings:
    """Return the config of Cr-KD, which finds the novel classes.

    Args:
        recipe: What to train.
        out: Folder of the discovery, absolute.
        num_known: K.
        seed: Of the run.
        num_novel: N.
        assign_to: Classes that unlabelled images may be of, ``'novel'`` or ``'all'``.
    """
    folder = OutFolder(out)
    stage_one = {
        'config': str(folder.config('stage_one')),
        'checkpoint': str(folder.work_dir('stage_one') / f'epoch_{_stage_one_epochs(recipe)}.pth'),
    }
    novel_head = {
        'type': 'mmkd_ext.NovelHead',
        'in_channels': recipe.num_features,
        'num_classes': num_novel,
        'hidden_channels': 256 if recipe.in_memory else 2048,
        'embed_channels': 64 if recipe.in_memory else 256,
    }
    relation = {'tap': 'class_logits', 'loss': {'type': 'mmkd_ext.ClassRelationLoss', 'loss_weight': 0.01}}
    cfg = {
        **_shared(recipe, out, 'discovery', seed, subset='all'),
        **_sgd(recipe.epochs, lr=0.01 if recipe.is_pretrained else 0.1),
        'model': {
            'type': 'mmkd_ext.NCDClassifier',
            **_network(recipe),
            'known_head': _known_head(recipe, num_known),
            'novel_head': novel_head,
            'assign_to': assign_to,
            **({'sinkhorn': {'num_iters': _SINKHORN_ITERS}} if assign_to == 'all' else {}),
        },
        'load_from': stage_one['checkpoint'],
    }
    cfg['custom_hooks'] = [
        {'type': 'mmkd_ext.LoadCheckHook', 'new': ['novel_head']},
        {'type': 'SyncBuffersHook'},
        {'type': 'mmkd_ext.BestHeadHook'},
        {'type': 'mmkd_ext.DistillHook', 'teacher': stage_one, 'terms': {'crkd': relation}},
    ]
    return cfg


def _stage_one_epochs(recipe: Recipe) -> int:
    """Known classes are learnt in half the time."""
    return max(1, recipe.epochs // 2)


def _shared(recipe: Recipe, out: Path, stage: str, seed: int, subset: str) -> Settings:
    """Data, hooks and logging. Evaluation has a pipeline only: there is nothing to evaluate against."""
    folder = OutFolder(out)
    data = {
        'type': 'mmkd_ext.ListedImages',
        'ann_file': str(folder.images),
        'side': recipe.side,
        'in_memory': recipe.in_memory,
    }
    loader = {'batch_size': recipe.batch_size, 'collate_fn': {'type': 'default_collate'}}
    loader |= {'num_workers': 0} if recipe.in_memory else {'num_workers': 4, 'persistent_workers': True}
    return {
        'default_scope': 'mmpretrain',
        'work_dir': str(folder.work_dir(stage)),
        'train_dataloader': {
            **loader,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'drop_last': True,
            'dataset': {**data, 'subset': subset, 'pipeline': _train_pipeline(recipe)},
        },
        'image_side': recipe.side,
        'image_crop': recipe.crop,
        'test_pipeline': _test_pipeline(recipe),
        'default_hooks': {
            'timer': {'type': 'IterTimerHook'},
            'logger': {'type': 'LoggerHook', 'interval': 100},
            'param_scheduler': {'type': 'ParamSchedulerHook'},
            'checkpoint': {
                'type': 'mmkd_ext.AtomicCheckpointHook',
                'interval': max(1, recipe.epochs // 8),
                'max_keep_ckpts': 1,
            },
            'sampler_seed': {'type': 'DistSamplerSeedHook'},
            'exact_resume': {'type': 'mmkd_ext.ExactResumeHook'},
            'preemption': {'type': 'mmkd_ext.PreemptionHook'},
        },
        'custom_hooks': [{'type': 'mmkd_ext.LoadCheckHook'}, {'type': 'SyncBuffersHook'}],
        'env_cfg': {
            'cudnn_benchmark': False,
            'mp_cfg': {'mp_start_method': 'fork', 'opencv_num_threads': 0},
            'dist_cfg': {'backend': 'nccl'},
        },
        'visualizer': {'type': 'Visualizer', 'vis_backends': [{'type': 'LocalVisBackend'}]},
        'log_processor': {'window_size': 10},
        'log_level': 'INFO',
        'randomness': {'seed': seed},
        'sync_bn': 'torch',
        **({'cpu_threads': 1} if recipe.side <= 12 else {}),  # tensors too small for a second thread
    }


def _train_pipeline(recipe: Recipe) -> list[Settings]:
    to_image = {'type': 'NumpyToPIL'}
    if recipe.is_photo:
        view = [
            to_image,
            {'type': 'torchvision/RandomResizedCrop', 'size': recipe.crop, 'scale': (0.5, 1.0)},
            {'type': 'torchvision/RandomHorizontalFlip'},
            {'type': 'torchvision/ColorJitter', 'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.2, 'hue': 0.05},
        ]
    else:
        affine = {'degrees': 15, 'translate': (0.125, 0.125), 'scale': (0.9, 1.1), 'interpolation': 'bilinear'}
        crop = [{'type': 'torchvision/RandomCrop', 'size': recipe.crop}] if recipe.crop < recipe.side else []
        view = [to_image, {'type': 'torchvision/RandomAffine', **affine}, *crop]
    return [{'type': 'MultiView', 'num_views': [2], 'transforms': [view]}, _PACK]


def _test_pipeline(recipe: Recipe) -> list[Settings]:
    if recipe.crop == recipe.side:
        return [_PACK]
    return [{'type': 'NumpyToPIL'}, {'type': 'torchvision/CenterCrop', 'size': recipe.crop}, _PACK]


def _network(recipe: Recipe) -> Settings:
    preprocessor = {
        'type': 'mmkd_ext.MultiViewDataPreprocessor',
        'mean': recipe.mean,
        'std': recipe.std,
        'to_rgb': recipe.to_bgr,  # it reverses the channels, which are red, green, blue here
    }
    return {'data_preprocessor': preprocessor, 'backbone': recipe.backbone, 'neck': recipe.neck}


def _known_head(recipe: Recipe, num_known: int) -> Settings:
    return {'type': 'mmkd_ext.CosineHead', 'in_channels': recipe.num_features, 'num_classes': num_known}


def _adamw(epochs: int, lr: float) -> Settings:
    return _schedule(epochs, {'type': 'AdamW', 'lr': lr, 'weight_decay': 1e-4}, eta_min=0.0)


def _sgd(epochs: int, lr: float) -> Settings:
    optimizer = {'type': 'SGD', 'lr': lr, 'momentum': 0.9, 'weight_decay': 1.5e-4}
    return _schedule(epochs, optimizer, eta_min=lr / 100)


def _schedule(epochs: int, optimizer: Settings, eta_min: float) -> Settings:
    """Warm-up over an eighth of the epochs, then a cosine."""
    warm_up = max(1, epochs // 8)
    cosine = {'type': 'CosineAnnealingLR', 'eta_min': eta_min, 'begin': warm_up, 'end': epochs}
    return {
        'optim_wrapper': {'optimizer': optimizer},
        'param_scheduler': [
            {'type': 'LinearLR', 'start_factor': 0.01, 'begin': 0, 'end': warm_up},
            *([cosine] if epochs > warm_up else []),
        ],
        'train_cfg': {'by_epoch': True, 'max_epochs': epochs, 'val_interval': epochs},
    }
