"""The plain sum of angles against brute force, in tiles that fit and that do not."""

import pytest
import torch

from mmkd_ext.ops.angle import angle_sum_torch


@pytest.mark.parametrize('num_samples', [3, 16, 67, 130])
@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_brute_force(check_angle_sum, num_samples, dtype, rtol):
    check_angle_sum(angle_sum_torch, num_samples, dtype=dtype, rtol=rtol)


@pytest.mark.parametrize('vertices', [slice(0, 5), slice(3, 40), slice(7, 7)], ids=str)
@pytest.mark.parametrize('delta', [0.05, 2.5])
def test_some_vertices(check_angle_sum, vertices, delta):
    check_angle_sum(angle_sum_torch, 40, vertices, delta=delta)
