import pytest
import torch

from mmkd_ext.models import ConvNet
from mmkd_ext.registry import MODELS


@pytest.mark.parametrize('size', [8, 28, 32])
def test_each_stage_after_the_first_halves_the_map(size):
    backbone = MODELS.build({'type': 'mmkd_ext.ConvNet', 'in_channels': 1})
    (feature_map,) = backbone(torch.randn(2, 1, size, size))
    assert feature_map.shape == (2, 64, size // 4, size // 4)
    assert (feature_map >= 0).all()


def test_every_parameter_learns():
    backbone = ConvNet(3, channels=(4, 5))
    backbone(torch.randn(2, 3, 8, 8))[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


def test_needs_a_stage():
    with pytest.raises(ValueError, match=r'ConvNet: .*stage'):
        ConvNet(3, channels=())
