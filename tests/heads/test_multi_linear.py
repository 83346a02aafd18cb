import math

import torch
from torch import nn

from mmkd_ext.heads import MultiLinear


def _separate(layer):
    linears = []
    for weight, bias in zip(layer.weight, layer.bias, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0]).double()
        linear.load_state_dict({'weight': weight, 'bias': bias})
        linears.append(linear)
    return linears


def test_equals_separate_linear_layers():
    layer = MultiLinear(3, 5, 4).double()
    shared, own = torch.randn(7, 5, dtype=torch.float64), torch.randn(3, 7, 5, dtype=torch.float64)
    linears = _separate(layer)
    torch.testing.assert_close(layer(shared), torch.stack([linear(shared) for linear in linears]))
    torch.testing.assert_close(layer(own), torch.stack([linear(x) for linear, x in zip(linears, own, strict=True)]))


def test_starts_with_the_distribution_of_separate_linear_layers():
    layer = MultiLinear(6, 400, 50)
    bound = 1 / math.sqrt(400)
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= bound
    torch.testing.assert_close(layer.weight.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0)
