"""Configs of the three stages of a discovery, which the stock Runner trains.

They hold no ``_base_`` and only absolute paths, so that a file written from one is complete. Every schedule is computed
from a number of epochs, and reaches its rate for each of them. :func:`forecast` tells what they will cost.

Suffixes: K known classes, N novel ones.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover.recipe import OutFolder, Recipe
from mmkd_ext.pictures import read_square
from mmkd_ext.registry import MODELS

__all__ = ['Forecast', 'discovery_config', 'forecast', 'representation_config', 'stage_one_config']

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
        num_novel: N; with 0 a classifier of the known classes is trained as long.
        assign_to: Classes that unlabelled images may be of, ``'novel'`` or ``'all'``.
    """
    if not num_novel:
        return _known_alone(recipe, out, num_known, seed)
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
    if recipe.discovery_batch_size is not None and recipe.labelled_per_batch is not None:
        quota = recipe.discovery_batch_size - recipe.labelled_per_batch
        cfg['train_dataloader'] |= {
            'batch_size': recipe.discovery_batch_size,
            'batch_sampler': {'type': 'mmkd_ext.QuotaBatchSampler', 'num_unlabelled': quota},
            'drop_last': False,  # of the loader; torch refuses it beside a batch sampler, which drops by itself
        }
    cfg['custom_hooks'] = [
        {'type': 'mmkd_ext.LoadCheckHook', 'new': ['novel_head']},
        {'type': 'SyncBuffersHook'},
        {'type': 'mmkd_ext.BestHeadHook'},
        {'type': 'mmkd_ext.DistillHook', 'teacher': stage_one, 'terms': {'crkd': relation}},
    ]
    return cfg


def _known_alone(recipe: Recipe, out: Path, num_known: int, seed: int) -> Settings:
    """The discovery of nothing new: stage one, trained on for as long as a discovery."""
    return {
        **stage_one_config(recipe, out, num_known, seed),
        **_sgd(recipe.epochs, lr=0.01 if recipe.is_pretrained else 0.1),
        'work_dir': str(OutFolder(out).work_dir('discovery')),
        'load_from': str(OutFolder(out).work_dir('stage_one') / f'epoch_{_stage_one_epochs(recipe)}.pth'),
    }


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
    loader: Settings = {'batch_size': recipe.batch_size, 'collate_fn': {'type': 'default_collate'}}
    loader |= {'num_workers': 0} if recipe.in_memory else {'num_workers': _workers(), 'persistent_workers': True}
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
        'value_range': recipe.value_range,
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
            'rate_check': {'type': 'mmkd_ext.RateCheckHook'},
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


def _workers() -> int:
    return min(4, os.cpu_count() or 1)


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
    """Warm-up over an eighth of the epochs, then a cosine.

    One epoch is no warm-up: mmengine's LinearLR of one step stays at its start factor for the whole training.
    """
    warm_up = epochs // 8 if epochs >= 16 else 0
    linear = {'type': 'LinearLR', 'start_factor': 0.01, 'begin': 0, 'end': warm_up}
    cosine = {'type': 'CosineAnnealingLR', 'eta_min': eta_min, 'begin': warm_up, 'end': epochs}
    return {
        'optim_wrapper': {'optimizer': optimizer},
        'param_scheduler': [*([linear] if warm_up else []), cosine],
        'train_cfg': {'by_epoch': True, 'max_epochs': epochs, 'val_interval': epochs},
    }


# --------------------------------------------------------------------------------------------------
# What it will cost.

_TEACHER = 4 / 3
"""A training step costs three forwards; the teacher of a discovery is one more."""
_WORKSPACE = 1.25
"""Gradients of activations and buffers of convolutions, beside what is kept for the backward."""


@dataclass(frozen=True)
class Forecast:
    """What a discovery will take on this machine, extrapolated from a few images.

    Attributes:
        seconds: Of all trainings; three discoveries where the number of novel classes is to be found.
        num_bytes: Memory at the highest, of the device that the model runs on.
        seconds_per_image: Of one view of one image in training.
    """

    seconds: float
    num_bytes: float
    seconds_per_image: float


def forecast(recipe: Recipe, images: FolderImages, *, finds_number: bool, looks: bool) -> Forecast:
    """Train the backbone on a few images, measure, and multiply.

    Args:
        recipe: What will be trained.
        images: On which images.
        finds_number: Whether the number of novel classes is to be found, by at least three discoveries.
        looks: Whether the representation is trained, for the number or for what unlabelled images may be.
    """
    device = get_device()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        backbone = MODELS.build({name: value for name, value in recipe.backbone.items() if name != 'init_cfg'})
        pipeline = Compose(_train_pipeline(recipe)[:-1])
    backbone.to(device).train()
    num_images, num_labelled = len(images.paths), sum(label >= 0 for label in images.labels)
    batch_size = recipe.discovery_batch_size or recipe.batch_size
    few = min(2 * batch_size, 256) if recipe.in_memory else 8
    pixels = torch.rand(few, 3, recipe.crop, recipe.crop, device=device)
    kept = _kept_bytes(backbone, pixels) / few
    per_view = _seconds(lambda: _step(backbone, pixels)) / few
    chosen = images.paths[:: -(-num_images // 4)]
    read = _seconds(lambda: [pipeline({'img': _pixels(path, recipe)}) for path in chosen]) / len(chosen)
    per_image = 2 * per_view + read / (1 if recipe.in_memory else _workers())
    seen = recipe.epochs * num_images * (3 if finds_number else 1) * _TEACHER
    seen += recipe.epochs * num_images * looks + _stage_one_epochs(recipe) * num_labelled
    largest = 2 * max(batch_size, recipe.contrast_batch_size * looks)
    weights = sum(parameter.numel() * 4 for parameter in backbone.parameters())
    stored = num_images * recipe.side**2 * 3 if recipe.in_memory else 0
    own = _resident_bytes() if device == 'cpu' else 0
    return Forecast(seen * per_image, own + stored + 5 * weights + _WORKSPACE * kept * largest, per_view)


def _pixels(path: str, recipe: Recipe) -> Any:
    return read_square(path, recipe.side, recipe.value_range)


def _step(backbone: torch.nn.Module, pixels: torch.Tensor) -> None:
    output = backbone(pixels)
    (output[-1] if isinstance(output, (tuple, list)) else output).float().mean().backward()
    if pixels.is_cuda:
        torch.cuda.synchronize()


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds of the faster of two repetitions; the first pays for what is done once."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _kept_bytes(backbone: torch.nn.Module, pixels: torch.Tensor) -> int:
    """Bytes that a forward keeps for its backward, weights not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = backbone(pixels)
    del output  # until here storages live, so that no two of them have one address
    return sum(kept.values())


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except OSError:
        return 0


def free_bytes() -> float:
    """Memory that is free on the device that trains; infinity where the system does not tell."""
    if get_device() == 'cuda':
        return torch.cuda.mem_get_info()[0]
    try:
        entries = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        return int(entries['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError):
        return float('inf')
