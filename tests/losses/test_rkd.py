"""RKDDistanceLoss and RKDAngleLoss are their weight times the function."""

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import rkd_angle, rkd_distance

BOTH = pytest.mark.parametrize(('name', 'function'), [('RKDDistanceLoss', rkd_distance), ('RKDAngleLoss', rkd_angle)])


@BOTH
def test_weight_times_function(name, function):
    student, teacher = torch.randn(5, 4, 3, 3), torch.randn(5, 7)
    loss = MODELS.build(dict(type=f'mmkd_ext.{name}', loss_weight=25.0, delta=0.5, reduction='distinct'))
    expected = 25 * function(student, teacher, delta=0.5, reduction='distinct')
    torch.testing.assert_close(loss(student, teacher), expected)


@BOTH
def test_defaults_are_those_of_the_official_code(name, function):
    loss = MODELS.build(dict(type=f'mmkd_ext.{name}'))
    assert repr(loss) == f"{name}(loss_weight=1.0, gather=False, delta=1.0, reduction='official')"


@BOTH
def test_bad_setting(name, function):
    with pytest.raises(ValueError, match=f'{name}: expected reduction in'):
        MODELS.build(dict(type=f'mmkd_ext.{name}', reduction='mean'))
    with pytest.raises(ValueError, match=f'{name}: expected delta > 0'):
        MODELS.build(dict(type=f'mmkd_ext.{name}', delta=0.0))
