from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, ExponentialMovingAverage, ImgDataPreprocessor
from mmengine.optim import LinearLR, MultiStepMomentum, OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from torch import nn

from mmkd_ext.engine.runner import InitialState, model_config, new_weights, student_of


@MODELS.register_module(force=True)
class RestartNet(BaseModel):
    """Its own initialisation multiplies what the layer begins with by ten."""

    def __init__(self, data_preprocessor=None, init_cfg=None):
        super().__init__(data_preprocessor, init_cfg)
        self.layer = nn.Linear(3, 2)

    def init_weights(self):
        super().init_weights()
        nn.init.constant_(self.layer.bias, 10.0)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.layer(inputs)


def runner_of(optimizers, schedulers, hooks=(), **cfg):
    return SimpleNamespace(
        model=RestartNet(), optim_wrapper=optimizers, param_schedulers=schedulers, hooks=list(hooks), cfg=Config(cfg)
    )


def adam(parameter):
    return OptimWrapper(torch.optim.Adam([parameter], lr=0.5))


def train(parameter, optimizer, schedulers, steps=4):
    rates = []
    for _ in range(steps):
        rates.append((optimizer.param_groups[0]['lr'], optimizer.param_groups[0]['betas'][0]))
        optimizer.update_params((parameter**2).sum())
        for scheduler in schedulers:
            scheduler.step()
    return rates


def set_up():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = adam(parameter)
    schedulers = [LinearLR(optimizer, 0.1, end=3), MultiStepMomentum(optimizer, [2], gamma=0.5)]
    return parameter, optimizer, schedulers


def test_optimizer_and_schedulers_do_it_all_again():
    parameter, optimizer, schedulers = set_up()
    runner = runner_of(optimizer, schedulers)
    initial = InitialState(runner)
    first = train(parameter, optimizer, schedulers)
    weights = parameter.detach().clone()
    for _ in range(2):
        initial.restore(runner)
        assert parameter.grad is None
        assert not optimizer.optimizer.state
        parameter.data.fill_(1.0)
        assert train(parameter, optimizer, schedulers) == first
        assert torch.equal(parameter, weights)


def test_several_optimizers_restart():
    parts = [set_up(), set_up()]
    optimizers = OptimWrapperDict(a=parts[0][1], b=parts[1][1])
    runner = runner_of(optimizers, {'a': parts[0][2], 'b': parts[1][2]})
    initial = InitialState(runner)
    first = [train(*part) for part in parts]
    initial.restore(runner)
    assert [train(*part) for part in parts] == first


def test_training_without_schedulers_restarts():
    parameter = nn.Parameter(torch.ones(2))
    runner = runner_of(adam(parameter), None)
    initial = InitialState(runner)
    train(parameter, runner.optim_wrapper, [])
    initial.restore(runner)
    assert not runner.optim_wrapper.optimizer.state


def test_average_begins_with_the_next_weights():
    hook = EMAHook()
    model = RestartNet()
    hook.ema_model = ExponentialMovingAverage(model)
    hook.ema_model.update_parameters(model)
    runner = runner_of(*set_up()[1:], [hook])
    InitialState(runner).restore(runner)
    model.layer.weight.data.fill_(7.0)
    hook.ema_model.update_parameters(model)
    assert torch.equal(hook.ema_model.module.layer.weight, model.layer.weight)


# New weights


def test_weights_are_those_of_the_config_and_the_seed():
    runner = runner_of(None, None, model={'type': 'RestartNet'})
    first, again, other = (new_weights(runner, seed) for seed in (1, 1, 2))
    assert torch.equal(first['layer.weight'], again['layer.weight'])
    assert not torch.equal(first['layer.weight'], other['layer.weight'])
    assert first['layer.bias'].tolist() == [10.0, 10.0]
    torch.manual_seed(1)
    expected = RestartNet()
    assert torch.equal(first['layer.weight'], expected.layer.weight)


def test_random_numbers_of_the_run_stay():
    runner = runner_of(None, None, model={'type': 'RestartNet'})
    before = torch.random.get_rng_state()
    new_weights(runner, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pretrained_weights_count_as_the_configs(tmp_path):
    torch.save(RestartNet().state_dict(), tmp_path / 'start.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'start.pth')}
    runner = runner_of(None, None, model={'type': 'RestartNet', 'init_cfg': init_cfg})
    expected = torch.load(tmp_path / 'start.pth')['layer.weight']
    assert all(torch.equal(new_weights(runner, seed)['layer.weight'], expected) for seed in (1, 2))


def test_data_preprocessor_beside_the_model_belongs_to_it():
    preprocessor = {'type': 'ImgDataPreprocessor', 'mean': [1.0], 'std': [2.0]}
    runner = runner_of(None, None, model={'type': 'RestartNet'}, data_preprocessor=preprocessor)
    assert isinstance(MODELS.build(model_config(runner)).data_preprocessor, ImgDataPreprocessor)
    assert 'data_preprocessor' not in runner.cfg.model


def test_runner_without_config_is_refused():
    with pytest.raises(RuntimeError, match=r'use Runner.from_cfg\(cfg\)'):
        new_weights(runner_of(None, None), 0)


def test_wrapper_is_taken_off():
    model = RestartNet()
    assert student_of(SimpleNamespace(model=model)) is model
