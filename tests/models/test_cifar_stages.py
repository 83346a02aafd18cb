import pytest
import torch
from torch import nn

from mmkd_ext.models.images import CIFARStages


class Scale(nn.Module):
    """Two times the input, every so many pixels, its channels repeated or cut."""

    def __init__(self, width_in, width, stride=1):
        super().__init__()
        self.width, self.stride = width, stride

    def forward(self, features):
        repeated = features.repeat(1, -(-self.width // features.shape[1]), 1, 1)[:, : self.width]
        return 2 * repeated[..., :: self.stride, :: self.stride]


def stages(out_indices=(0, 1, 2), num_blocks=2):
    return CIFARStages(nn.Identity(), [1, 4, 2, 3], Scale, num_blocks, out_indices, None)


def test_each_map_is_the_one_of_the_stage_before_through_its_blocks():
    images = torch.rand(2, 1, 8, 8)
    maps = stages()(images)
    for features, width, stride, factor in zip(maps, (4, 2, 3), (1, 2, 4), (4, 16, 64), strict=True):
        torch.testing.assert_close(features, factor * images[..., ::stride, ::stride].expand(-1, width, -1, -1))


def test_maps_come_in_the_order_asked_for():
    images = torch.rand(1, 1, 7, 7)
    assert [tuple(features.shape) for features in stages((2, 0))(images)] == [(1, 3, 2, 2), (1, 4, 7, 7)]


def test_every_stage_has_as_many_blocks():
    assert [len(stage) for stage in stages(num_blocks=5).stages] == [5, 5, 5]


@pytest.mark.parametrize('out_indices', [(), (3,), (-1,)])
def test_refuses_other_stages(out_indices):
    with pytest.raises(ValueError, match=r'CIFARStages: .*out_indices .*got'):
        stages(out_indices)
