import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmkd_ext.engine.cpu import BFloat16OptimWrapper


def build(model, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return OPTIM_WRAPPERS.build({'type': 'mmkd_ext.BFloat16OptimWrapper', 'optimizer': optimizer, **kwargs})


def test_the_forward_is_in_bfloat16_and_the_parameters_are_not():
    model = nn.Linear(3, 2)
    wrapper = build(model)
    assert isinstance(wrapper, BFloat16OptimWrapper)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(4, 3))
    wrapper.update_params(output.float().sum())
    assert output.dtype == torch.bfloat16
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight, before - 0.5 * 4)
    assert model(torch.ones(4, 3)).dtype == torch.float32


def test_gradients_are_accumulated_as_in_mmengine():
    model = nn.Linear(3, 2)
    wrapper = build(model, accumulative_counts=2)
    before = model.weight.detach().clone()
    for expected in (before, before - 0.5):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 3)).float().sum()
        wrapper.update_params(loss)
        torch.testing.assert_close(model.weight.detach(), expected)
