import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_ext.distill import rehearse, same_randomness


class Restless(nn.Module):
    """Changes whatever a model can change in a forward."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
        self.momentum_body = nn.Linear(3, 3).requires_grad_(False)
        self.register_buffer('queue', torch.zeros(2, 3))
        self.register_buffer('pointer', torch.zeros((), dtype=torch.int64), persistent=False)
        self.num_calls = 0

    def forward(self, x):
        self.num_calls += 1
        self.pointer += 1
        self.queue = x.detach()[:2].clone()
        with torch.no_grad():
            self.momentum_body.weight.lerp_(self.body[0].weight, 0.5)
        self.momentum_body.cache = x
        return self.body(self.norm(x))


def everything(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_leaves_no_trace():
    model = Restless()
    model.body[1](torch.randn(4, 3))
    before, objects, order = copy.deepcopy(everything(model)), everything(model), list(model.state_dict())
    with same_randomness(torch.device('cpu')):
        rehearse(model, x=torch.randn(4, 3))
    for name, tensor in everything(model).items():
        assert tensor is objects[name], name
        assert torch.equal(tensor, before[name]), name
    assert list(model.state_dict()) == order
    assert model.num_calls == 0
    assert not hasattr(model.momentum_body, 'cache')
    assert all(parameter.grad is None for parameter in model.parameters())


def test_leaves_no_trace_when_it_fails():
    model = Restless()
    before = copy.deepcopy(everything(model))
    with pytest.raises(RuntimeError):
        rehearse(model, x=torch.randn(4, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(model).items())
    assert model.num_calls == 0


def test_computes_what_the_model_computes():
    model = Restless()
    x = torch.randn(4, 3)
    torch.manual_seed(3)
    rehearsed = rehearse(model, x=x)
    torch.manual_seed(3)
    torch.testing.assert_close(rehearsed, model(x), rtol=0, atol=0)


def test_outputs_need_a_gradient_where_they_do_in_training():
    model = Restless()
    assert rehearse(model, x=torch.randn(4, 3)).requires_grad
    model.requires_grad_(False)
    assert not rehearse(model, x=torch.randn(4, 3)).requires_grad


def test_with_activation_checkpointing():
    model = Restless()
    forward = model.body.forward
    model.body.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    before = copy.deepcopy(everything(model))
    rehearse(model, x=torch.randn(4, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(model).items())


def test_gives_random_numbers_back():
    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    with same_randomness(torch.device('cpu')):
        draw()
    assert draw() == expected
