"""SoftTargetLoss is its weight times the function."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmkd_ext.functional import soft_target
from mmkd_ext.losses import SoftTargetLoss


def test_weight_times_function():
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64).unbind()
    result = SoftTargetLoss(4.0, loss_weight=0.5)(student, teacher)
    torch.testing.assert_close(result, 0.5 * soft_target(student, teacher, temperature=4.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_built_from_any_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        loss = MODELS.build({'type': 'mmkd_ext.SoftTargetLoss', 'temperature': 4.0})
    assert isinstance(loss, SoftTargetLoss)
    assert repr(loss) == 'SoftTargetLoss(temperature=4.0, loss_weight=1.0)'


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        ({'temperature': 0.0}, ValueError, r'expected temperature > 0 but got 0.0'),
        ({'temperature': None}, TypeError, r'expected temperature to be a number but got None'),
        ({'temperature': 1.0, 'loss_weight': -0.1}, ValueError, r'expected loss_weight >= 0 but got -0.1'),
    ],
)
def test_refused_at_construction(settings, error, message):
    with pytest.raises(error, match=f'SoftTargetLoss: {message}'):
        SoftTargetLoss(**settings)
