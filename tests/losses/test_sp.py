"""SPLoss is its weight times the function."""

import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import similarity_preserving
from mmkd_ext.losses import SPLoss


def test_weight_times_function():
    student, teacher = torch.randn(5, 4, 3, 3), torch.randn(5, 7)
    torch.testing.assert_close(SPLoss(0.5)(student, teacher), 0.5 * similarity_preserving(student, teacher))


def test_default_weight_is_that_of_the_paper():
    assert repr(MODELS.build({'type': 'mmkd_ext.SPLoss'})) == 'SPLoss(loss_weight=3000.0, gather=False)'
