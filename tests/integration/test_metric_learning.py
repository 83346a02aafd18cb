"""The shipped recipes of metric learning against the flags of RKD's official scripts."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmkd_ext.registry import DATASETS, MODELS
from official_layouts import WRITERS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'metric_learning'
EPOCHS = {'cub': 80, 'cars': 80, 'sop': 120}  # of students
FOLDERS = {'cub': 'CUB_200_2011', 'cars': 'stanford_cars', 'sop': 'Stanford_Online_Products'}


def load(name):
    return Config.fromfile(CONFIGS / f'metric_learning{name}.py')


def official_rates(rate, epochs, decays, gamma):
    """The scripts step their scheduler when an epoch begins, so the first epoch has seen one step already."""
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([parameter], lr=rate)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, decays, gamma)
    rates = []
    for _ in range(epochs):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]['lr'])
    return rates


def shipped_rates(cfg):
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(()))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build({**one, 'optimizer': optimizer}) for one in cfg.param_scheduler]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


# Config, learning rate, epochs, their iterations, decays as the scripts' flags have them, gamma.
RECIPES = [
    *((f'_resnet50_40e_{data}', 1e-5, 40, 1000 if data == 'sop' else 100, [25, 30, 35], 0.5) for data in FOLDERS),
    *((f'_resnet18_40e_{data}', 1e-5, 40, 1000 if data == 'sop' else 100, [25, 30, 35], 0.5) for data in FOLDERS),
    *(
        (f'-{method}_{network}_{EPOCHS[data]}e_{data}', 1e-4, *length)
        for data, length in {
            'cub': (80, 100, [40, 60], 0.1),
            'cars': (80, 100, [40, 60], 0.1),
            'sop': (120, 500, [40, 80], 0.1),
        }.items()
        for method, network in [
            *((method, 'resnet18') for method in ('rkd-distance', 'rkd-angle', 'rkd', 'darkrank', 'attention')),
            *((f'generation{number}', 'resnet50') for number in (1, 2, 3)),
        ]
    ),
]


@pytest.mark.parametrize(('name', 'rate', 'epochs', 'iterations', 'decays', 'gamma'), RECIPES, ids=str)
def test_schedule_to_the_iteration(name, rate, epochs, iterations, decays, gamma):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == epochs
    assert shipped_rates(cfg) == pytest.approx(official_rates(rate, epochs, decays, gamma), rel=1e-9)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('Adam', 1e-5)
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.batch_sampler.samples_per_class) == (128, 5)
    assert loader.batch_sampler.num_batches == iterations


@pytest.mark.usefixtures('host_scope')
@pytest.mark.parametrize('data', FOLDERS)
def test_networks(data):
    names = [f'_resnet50_40e_{data}', f'_resnet18_40e_{data}', f'-rkd_resnet18_{EPOCHS[data]}e_{data}']
    teacher, student, relations = (load(name).model.head for name in names)
    assert [head.embedding_dims for head in (teacher, student, relations)] == [512, *[64 if data == 'sop' else 128] * 2]
    heads = [MODELS.build(head) for head in (teacher, student, relations)]
    assert [head.normalize for head in heads] == [True, True, False]
    assert [type(head.loss_module).__name__ for head in heads] == ['TripletLoss', 'TripletLoss', 'NoneType']
    assert heads[0].loss_module.settings == dict(margin=0.2, mining='distance', seed=0, squared=False)


@pytest.mark.parametrize('data', FOLDERS)
def test_relations_see_the_student_as_it_is_and_the_teacher_normalised(data):
    terms = load(f'-rkd_resnet18_{EPOCHS[data]}e_{data}').custom_hooks[-1].terms
    assert {(term.student, term.teacher) for term in terms.values()} == {('head.fc', 'head.normalized')}
    assert {name: term.loss.loss_weight for name, term in terms.items()} == {'rkd_distance': 1.0, 'rkd_angle': 2.0}


def test_generations_are_a_chain():
    names = [f'-generation{number}_resnet50_80e_cub' for number in (1, 2, 3)]
    teachers = [load(name).custom_hooks[-1].teacher for name in names]
    expected = ['metric_learning_resnet50_40e_cub', *(f'metric_learning{name}' for name in names[:2])]
    assert [Path(teacher.config).stem for teacher in teachers] == expected
    for teacher, epoch in zip(teachers, (40, 80, 80), strict=True):
        assert teacher.checkpoint == f'work_dirs/{Path(teacher.config).stem}/epoch_{epoch}.pth'
        assert Config.fromfile(teacher.config).train_cfg.max_epochs == epoch


@pytest.mark.usefixtures('host_scope')
@pytest.mark.parametrize('data', FOLDERS)
def test_images_and_splits(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WRITERS[FOLDERS[data]](tmp_path / 'data' / FOLDERS[data])
    cfg = load(f'_resnet50_40e_{data}')
    train, test = (DATASETS.build(cfg[f'{mode}_dataloader'].dataset) for mode in ('train', 'val'))
    assert not set(train.get_gt_labels()) & set(test.get_gt_labels())
    for split in (train, test):
        assert len(split)
        assert split[0]['inputs'].shape == (3, 224, 224)
        # Height and width are scaled apart: the aspect is not kept.
        assert split.pipeline.transforms[2].t.size == (256, 256)
    assert cfg.test_dataloader == cfg.val_dataloader
    topk = (1, 10, 100, 1000) if data == 'sop' else (1, 2, 4, 8)
    assert cfg.val_evaluator == cfg.test_evaluator == dict(type='mmkd_ext.RetrievalMetric', topk=topk)
