import pytest
import torch
from torch import nn

from mmkd_ext.models import WideResNet
from mmkd_ext.registry import MODELS

pytestmark = pytest.mark.usefixtures('host_scope')


@pytest.mark.parametrize(
    ('depth', 'widen_factor', 'millions'), [(16, 1, 0.18), (16, 2, 0.70), (40, 1, 0.57), (40, 2, 2.26), (28, 10, 36.5)]
)
def test_parameters_are_those_of_the_literature(depth, widen_factor, millions):
    """Sizes in millions; with a linear head of 100 classes, WRN-28-10 with 10 as in the paper's table 5."""
    with torch.device('meta'):
        backbone = WideResNet(depth, widen_factor)
        head = nn.Linear(64 * widen_factor, 10 if widen_factor == 10 else 100)
    count = sum(parameter.numel() for module in (backbone, head) for parameter in module.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_depth_counts_all_convolutions():
    """n = (d - 4) / 6 blocks a stage: d = 6n convolutions, the first one and the three that change the shape."""
    assert sum(isinstance(module, nn.Conv2d) for module in WideResNet(40, 2).modules()) == 40


def test_maps_of_the_stages():
    config = {'type': 'mmkd_ext.WideResNet', 'depth': 10, 'widen_factor': 2, 'out_indices': (0, 1, 2)}
    maps = MODELS.build(config)(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert [bool((m >= 0).all()) for m in maps] == [False, False, True]
    (last,) = WideResNet(10, 1)(torch.randn(2, 3, 32, 32))
    assert last.shape == (2, 64, 8, 8)


def test_a_block_without_residual_hands_its_input_on():
    """Pre-activation: nothing stands on the way around a block that keeps the shape, not even a ReLU."""
    backbone = WideResNet(16, 1, out_indices=(0,)).eval()
    for block in backbone.stages[0]:
        nn.init.zeros_(block.residual[-1].weight)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(backbone(images)[0], backbone.stem(images))


def test_every_parameter_learns():
    backbone = WideResNet(16, 1)
    (features,) = backbone(torch.randn(2, 3, 16, 16))
    features.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'depth': 20, 'widen_factor': 2}, 'expected depth 6n'),
        ({'depth': 16, 'widen_factor': 0}, 'expected widen_factor'),
        ({'depth': 16, 'widen_factor': 2, 'out_indices': (-1,)}, 'expected out_indices'),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(**arguments)
