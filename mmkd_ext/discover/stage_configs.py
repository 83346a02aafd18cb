"""Configs of the three stages of a discovery, which the stock Runner trains.

They hold no ``_base_`` and only absolute paths, so that a file written from one is complete. Every schedule is computed
from a number of epochs, and reaches its rate for each of them.

Suffixes: K known classes, N novel ones.
"""

from pathlib import Path
from typing import Any

from mmkd_ext.discover.recipe import OutFolder, Recipe

__all__ = ['discovery_config', 'representation_config', 'stage_one_config']

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
