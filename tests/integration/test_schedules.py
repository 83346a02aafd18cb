"""The shipped schedules give the official learning rate in every epoch (golden vectors of the official scheduler)."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR

SCHEDULES = Path(__file__).parents[2] / 'configs' / '_base_' / 'schedules'


def _learning_rates(name: str) -> list[float]:
    cfg = Config.fromfile(SCHEDULES / f'{name}.py')
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    kinds = dict(LinearLR=LinearLR, CosineAnnealingLR=CosineAnnealingLR)
    schedulers = [kinds[s.pop('type')](optimizer, **s) for s in cfg.param_scheduler.copy()]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize(('name', 'key'), [('cifar_discovery', 'cifar'), ('vit_discovery', 'vit')])
def test_discovery_schedules_equal_the_official_ones(golden, name, key):
    expected = golden('crkd_lr_schedule')[f'{key}_lr_at_epoch']
    assert _learning_rates(name) == pytest.approx(expected[:-1].tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ('name', 'base', 'low', 'warmup', 'epochs'),
    [
        ('cifar_supervised', 0.1, 0.001, 10, 200),
        ('vit_supervised', 1e-3, 1e-4, 5, 50),
        ('digits_discovery', 0.1, 0.001, 10, 80),
    ],
)
def test_warm_up_and_cosine_by_formula(name, base, low, warmup, epochs):
    rates = _learning_rates(name)
    for epoch, rate in enumerate(rates):
        if epoch < warmup:
            expected = low + epoch * (base - low) / (warmup - 1)
        else:
            expected = low + 0.5 * (base - low) * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
        assert rate == pytest.approx(expected, rel=1e-9), epoch
