"""A whole training step never asks the device for a value: data path, student, teacher, losses, hooks, optimizer.

Tensors on the meta device have a shape and no values. Whoever wants to know one on the host, by ``.item()``, a Python
branch, ``nonzero``, a boolean mask or a copy, gets an error, where a real GPU would make the host wait. What the meta
device lets pass are copies in the other direction that wait for the device; a dispatch mode refuses them.
"""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from mmkd_ext.datasets import Digits, InMemoryDataset, NovelClassSplit, collate_batch
from mmkd_ext.hooks import DistillHook
from mmkd_ext.registry import MODELS

pytestmark = pytest.mark.usefixtures('host_scope', 'one_thread')

META = torch.device('meta')


class NoWait(TorchDispatchMode):
    """Refuses copies from the host to the device that are not queued there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get('device') == META and args[0].device != META:
            assert kwargs.get('non_blocking'), f'a copy of shape {tuple(args[0].shape)} waits; use non_blocking=True'
        return func(*args, **kwargs)


def model_config(novel=True):
    flip = dict(type='mmkd_ext.BatchRandomFlip')
    crops = [
        dict(type='mmkd_ext.BatchRandomCrop', size=8, padding=1),
        dict(type='mmkd_ext.BatchRandomResizedCrop', size=8, scale=(0.5, 1.0)),
    ]
    tones = [dict(type='mmkd_ext.BatchSolarize', prob=0.3), dict(type='mmkd_ext.BatchEqualize', prob=0.3)]
    jitter = dict(type='mmkd_ext.BatchColorJitter', prob=0.6, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    large = [dict(type='mmkd_ext.BatchRandomChoice', transforms=crops), flip, jitter, *tones]
    small = [dict(type='mmkd_ext.BatchRandomResizedCrop', size=6, scale=(0.3, 0.8)), flip, *tones]
    views = dict(type='mmkd_ext.BatchMultiView', num_views=[2, 2], transforms=[large, small])
    return dict(
        type='mmkd_ext.NCDClassifier',
        data_preprocessor=dict(
            type='mmkd_ext.MultiViewDataPreprocessor',
            mean=[0.0] * 3,
            std=[255.0] * 3,
            batch_augments=[views],
            channels_last=True,
        ),
        backbone=dict(type='mmkd_ext.ConvNet', in_channels=3, channels=(8, 16)),
        neck=dict(type='GlobalAveragePooling'),
        known_head=dict(type='mmkd_ext.CosineHead', in_channels=16, num_classes=5),
        novel_head=dict(type='mmkd_ext.NovelHead', in_channels=16, num_classes=5) if novel else None,
        num_large_views=4,  # the teacher computes no others, and relations want the same rows of both
    )


def red_green_blue(info):
    """A packed sample of three channels, as of CIFAR."""
    from mmpretrain.structures import DataSample

    sample = DataSample(metainfo={'sample_idx': info['sample_idx']}).set_gt_label(info['gt_label'])
    return {'inputs': torch.from_numpy(info['img']).expand(3, -1, -1).clone(), 'data_samples': sample}


class Run:
    """What hooks see of a Runner that trains on the meta device."""

    def __init__(self, model, loader):
        self.model = model
        self.train_dataloader = loader
        self.train_loop = None
        self.optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        self.logger = MMLogger.get_instance('test')
        self.hooks = []
        self.epoch = self.iter = 0
        self.cfg = ConfigDict()


def loss(name, **settings):
    return dict(type=f'mmkd_ext.{name}', **settings)


RELATIONS = {
    'rkd_d': loss('RKDDistanceLoss'),
    'rkd_a': loss('RKDAngleLoss'),
    'sp': loss('SPLoss'),
    'cckd': loss('CCKDLoss'),
    'taylor': loss('CCKDLoss', order=2),
}
TERMS = {
    **{name: dict(tap='embedding', loss=relation) for name, relation in RELATIONS.items()},
    'crkd': dict(tap='class_logits', loss=loss('ClassRelationLoss')),
    'scheduled': dict(tap='embedding', loss=loss('SPLoss'), schedule=dict(by_epoch=False, warmup=4)),
}


@pytest.fixture
def _no_autocast(monkeypatch):
    """The meta device has no autocast to leave."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch, 'autocast', lambda device_type, **kwargs: autocast(device_type.replace('meta', 'cpu'), **kwargs)
    )


@pytest.mark.usefixtures('_no_autocast')
def test_a_step_of_discovery_with_all_relations():
    MessageHub.get_current_instance().update_info_dict({'seed': 0, 'iter': 0})
    dataset = InMemoryDataset(NovelClassSplit(Digits(pipeline=[red_green_blue]), known=5), device='cpu')
    sampler = DefaultSampler(dataset, shuffle=True, seed=0)
    loader = DataLoader(dataset, batch_size=32, sampler=sampler, collate_fn=collate_batch)
    student = MODELS.build(model_config())
    run = Run(student, loader)
    hook = DistillHook(teacher=dict(model=model_config(novel=False), checkpoint=None), terms=TERMS)
    hook.before_train(run)  # which may wait
    for model in (student, hook._distillation.teachers['teacher']):
        model.to(META)
    dataset.images, dataset.device = dataset.images.to(META), META
    batches = iter(loader)
    for step in range(3):
        run.iter = step
        hook.before_train_iter(run, step)
        with NoWait():
            logged = student.train_step(next(batches), run.optim_wrapper)
        hook.after_train_iter(run, step)
        assert {f'loss_{term}' for term in TERMS} <= set(logged)
        assert all(value.device == META for value in logged.values())


@pytest.mark.parametrize(
    'wait',
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: torch.ones(3).to(x.device),
    ],
    ids=['item', 'bool', 'mask', 'nonzero', 'copy', 'upload'],
)
def test_the_test_would_find_a_wait(wait):
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError)), NoWait():
        wait(torch.ones(3, device=META))
