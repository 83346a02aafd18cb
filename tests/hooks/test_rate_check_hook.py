"""Real runs of a tiny model: what is said at the start against the rates that the optimizer had."""

import uuid

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmkd_ext.hooks import RateCheckHook
from mmkd_ext.hooks.rate_check_hook import highest_rates


class _Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='loss', **kwargs):
        return {'loss': self.layer(torch.stack(list(inputs))).sum()}


class _Watch(Hook):
    """Rates that training really had, and what was foretold."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.rates, self.said = [], []
        runner.logger.warning, self.warning = self.said.append, runner.logger.warning
        self.foretold = highest_rates(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])


def run(tmp_path, schedulers, epochs=4, iters=2, train_cfg=None, resume_at=None):
    watch = _Watch()
    data = [dict(inputs=torch.ones(2))] * (2 * iters)
    runner = Runner(
        model=_Net(),
        work_dir=str(tmp_path),
        train_dataloader=dict(dataset=data, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
        param_scheduler=schedulers,
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=epochs),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[watch, RateCheckHook()],
        experiment_name=uuid.uuid4().hex,
    )
    runner.train()
    return watch


LINEAR = dict(type='LinearLR', start_factor=0.01, begin=0)
COSINE = dict(type='CosineAnnealingLR', begin=1, end=4)


@pytest.mark.parametrize(
    ('schedulers', 'kwargs', 'highest'),
    [
        ([dict(LINEAR, end=1)], {}, 0.005),  # one step of warm-up: never rises
        ([dict(LINEAR, end=1), COSINE], {}, 0.005),
        ([dict(LINEAR, end=1, convert_to_iter_based=True)], dict(iters=1), 0.005),
        ([dict(LINEAR, end=7)], {}, 0.2525),  # longer than the training
        ([dict(LINEAR, end=20, by_epoch=False)], {}, 0.005 + 0.495 * 7 / 19),
        ([dict(type='ConstantLR', factor=0.5, begin=0, end=9)], {}, 0.25),
        ([dict(LINEAR, end=5, by_epoch=False)], dict(train_cfg=dict(by_epoch=False, max_iters=3)), 0.2525),
    ],
)
def test_a_rate_that_is_never_reached_is_said_at_the_start(tmp_path, schedulers, kwargs, highest):
    watch = run(tmp_path, schedulers, **kwargs)
    assert max(watch.rates) == pytest.approx(highest)
    assert watch.foretold == [(pytest.approx(highest), 0.5)]
    said = [line for line in watch.said if 'RateCheckHook' in line]
    assert len(said) == 1
    assert f'never goes beyond {highest:.3g}' in said[0]


@pytest.mark.parametrize(
    ('schedulers', 'kwargs'),
    [
        (None, {}),
        ([dict(LINEAR, end=2)], {}),
        ([dict(LINEAR, end=1, convert_to_iter_based=True)], {}),
        ([dict(LINEAR, end=4, by_epoch=False), dict(type='CosineAnnealingLR', T_max=4, begin=2, end=4)], {}),
        ([dict(type='CosineAnnealingLR', T_max=4)], {}),
        ([dict(type='MultiStepLR', milestones=[1])], {}),
        ([dict(type='LinearMomentum', start_factor=0.1, begin=0, end=9)], {}),
    ],
)
def test_right_schedules_are_not_mentioned_and_not_touched(tmp_path, schedulers, kwargs):
    watch = run(tmp_path, schedulers, **kwargs)
    assert max(watch.rates) == pytest.approx(0.5)
    assert watch.said == []
