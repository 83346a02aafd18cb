import torch

from mmkd_ext.registry import MODELS


def test_largest_value_of_each_square():
    neck = MODELS.build({'type': 'mmkd_ext.MaxPooling', 'kernel_size': 2})
    maps = torch.arange(15.0).view(1, 1, 3, 5)
    assert neck(maps).tolist() == [[[[6.0, 8.0]]]]
