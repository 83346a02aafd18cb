"""HardDarkRankLoss is its weight times the function."""

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import hard_dark_rank
from mmkd_ext.losses import HardDarkRankLoss


@pytest.mark.parametrize('settings', [{}, {'alpha': 2.0, 'beta': 1.0, 'permute_len': 3, 'normalize': False}], ids=str)
def test_weight_times_function(settings):
    student, teacher = torch.randn(6, 4), torch.randn(6, 7)
    torch.testing.assert_close(
        HardDarkRankLoss(0.5, **settings)(student, teacher), 0.5 * hard_dark_rank(student, teacher, **settings)
    )


def test_built_from_a_config():
    assert repr(MODELS.build({'type': 'mmkd_ext.HardDarkRankLoss', 'alpha': 2.0})) == (
        'HardDarkRankLoss(loss_weight=1.0, gather=False, alpha=2.0, beta=3.0, permute_len=4, normalize=True)'
    )


def test_refused_at_construction():
    with pytest.raises(ValueError, match='HardDarkRankLoss: expected permute_len >= 2 but got 1'):
        HardDarkRankLoss(permute_len=1)
