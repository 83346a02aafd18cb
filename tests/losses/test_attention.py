"""AttentionTransferLoss is its weight times the function."""

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import attention_transfer
from mmkd_ext.losses import AttentionTransferLoss


def test_weight_times_function():
    student, teacher = torch.randn(5, 4, 3, 3), torch.randn(5, 7, 3, 3)
    torch.testing.assert_close(AttentionTransferLoss(0.5)(student, teacher), 0.5 * attention_transfer(student, teacher))


def test_built_from_a_config():
    loss = MODELS.build({'type': 'mmkd_ext.AttentionTransferLoss'})
    assert repr(loss) == 'AttentionTransferLoss(loss_weight=1000.0)'


def test_refused_at_construction():
    with pytest.raises(ValueError, match=r'AttentionTransferLoss: expected loss_weight >= 0 but got -1\.0'):
        AttentionTransferLoss(-1.0)
