import pytest
import torch
from torch import nn

from mmkd_ext.models import CIFARResNet
from mmkd_ext.registry import MODELS

pytestmark = pytest.mark.usefixtures('host_scope')


@pytest.mark.parametrize(
    ('depth', 'stem_channels', 'base_channels', 'millions'),
    [
        (8, 16, 16, 0.08),
        (20, 16, 16, 0.28),
        (32, 16, 16, 0.47),
        (56, 16, 16, 0.86),
        (110, 16, 16, 1.74),
        (8, 32, 64, 1.23),
        (32, 32, 64, 7.43),
    ],
)
def test_parameters_are_those_of_the_benchmark(depth, stem_channels, base_channels, millions):
    """Sizes in millions with a linear head of 100 classes, as papers on CIFAR-100 print them."""
    backbone = CIFARResNet(depth, stem_channels=stem_channels, base_channels=base_channels)
    head = nn.Linear(4 * base_channels, 100)
    count = sum(parameter.numel() for module in (backbone, head) for parameter in module.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_depth_counts_the_convolutions_on_the_main_path_and_the_head():
    convolutions = [m for m in CIFARResNet(56).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == 56


def test_maps_of_the_stages():
    backbone = MODELS.build({'type': 'mmkd_ext.CIFARResNet', 'depth': 8, 'out_indices': (0, 1, 2)})
    maps = backbone(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert all((m >= 0).all() for m in maps)
    (last,) = CIFARResNet(8)(torch.randn(2, 3, 32, 32))
    assert last.shape == (2, 64, 8, 8)


def test_a_block_without_residual_hands_its_input_on():
    """The definition y = relu(x + F(x)): where F is zero, blocks that keep the shape change nothing."""
    backbone = CIFARResNet(20, out_indices=(0,)).eval()
    for block in backbone.stages[0]:
        nn.init.zeros_(block.residual[-1].weight)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(backbone(images)[0], backbone.stem(images))


def test_initial_weights_are_normal_by_fan_out():
    backbone = CIFARResNet(20)
    backbone.init_weights()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_every_parameter_learns():
    backbone = CIFARResNet(14)
    backbone(torch.randn(2, 3, 16, 16))[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'depth': 18}, 'expected depth 6n'),
        ({'depth': 2}, 'expected depth 6n'),
        ({'depth': 20, 'out_indices': (3,)}, 'expected out_indices'),
        ({'depth': 20, 'out_indices': ()}, 'expected out_indices'),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        CIFARResNet(**arguments)
