"""Configs of the stages: complete, and what the recipe says."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmkd_ext.discover import Recipe, discovery_config, representation_config, stage_one_config
from mmkd_ext.registry import MODELS


@pytest.fixture
def recipe():
    return Recipe(
        side=10,
        crop=8,
        in_memory=True,
        is_photo=False,
        backbone={'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': [4, 6]},
        neck={'type': 'GlobalAveragePooling'},
        num_features=6,
        mean=[1.0, 2.0, 3.0],
        std=[4.0, 5.0, 6.0],
        to_bgr=False,
        epochs=16,
        batch_size=4,
        contrast_batch_size=8,
    )


@pytest.fixture
def configs(recipe):
    common = recipe, Path('/out'), 3, 7
    return {
        'representation': representation_config(*common),
        'stage_one': stage_one_config(*common),
        'discovery': discovery_config(*common, num_novel=5, assign_to='all'),
    }


@pytest.mark.parametrize('stage', ['representation', 'stage_one', 'discovery'])
def test_models_learn_from_two_views(configs, host_scope, stage):
    cfg = Config(configs[stage])
    model = MODELS.build(cfg.model)
    samples = [_sample(label) for label in (0, 2, 1, 0 if stage == 'stage_one' else -1)]
    losses = model(torch.rand(2, 4, 3, 8, 8).unbind(), samples, mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert cfg.randomness.seed == 7
    assert cfg.train_dataloader.batch_size == (8 if stage == 'representation' else 4)
    assert cfg.work_dir == f'/out/{stage}'
    assert cfg.train_dataloader.dataset.subset == ('labelled' if stage == 'stage_one' else 'all')


def _sample(label: int):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(label)


def test_discovery_starts_from_stage_one_and_has_it_as_teacher(configs):
    cfg = configs['discovery']
    teacher = next(hook for hook in cfg['custom_hooks'] if hook['type'] == 'mmkd_ext.DistillHook')['teacher']
    assert teacher == {'config': '/out/configs/stage_one.py', 'checkpoint': '/out/stage_one/epoch_8.pth'}
    assert cfg['load_from'] == teacher['checkpoint']
    assert configs['stage_one']['train_cfg']['max_epochs'] == 8
    assert cfg['train_cfg']['max_epochs'] == 16
    assert cfg['model']['novel_head']['num_classes'] == 5


@pytest.mark.parametrize(('assign_to', 'num_iters'), [('all', 20), ('novel', None)])
def test_assignments_to_all_classes_converge(recipe, host_scope, assign_to, num_iters):
    model = discovery_config(recipe, Path('/out'), 3, 7, 5, assign_to)['model']
    assert model.get('sinkhorn', {}).get('num_iters') == num_iters
    assert MODELS.build(model).assign.keywords.get('num_iters') == num_iters


@pytest.mark.parametrize('epochs', [1, 2, 3, 80])
def test_schedules_of_any_length(recipe, epochs):
    from dataclasses import replace

    short = replace(recipe, epochs=epochs)
    for cfg in (stage_one_config(short, Path('/o'), 3, 0), discovery_config(short, Path('/o'), 3, 0, 2, 'novel')):
        warm_up, *cosine = cfg['param_scheduler']
        assert warm_up['end'] <= cfg['train_cfg']['max_epochs']
        assert all(part['begin'] == warm_up['end'] < part['end'] for part in cosine)
