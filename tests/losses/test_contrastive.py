"""ContrastiveLoss is its weight times the function, with the noise of its own step."""

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import contrastive_loss
from mmkd_ext.losses import ContrastiveLoss


@pytest.mark.parametrize('settings', [{}, {'margin': 0.5, 'mining': 'all'}, {'seed': 3}], ids=str)
def test_weight_times_function(settings):
    loss = ContrastiveLoss(0.5, **settings)
    for step in range(3):
        embedding, labels = torch.randn(12, 4), torch.arange(12) % 3
        torch.testing.assert_close(
            loss(embedding, labels), 0.5 * contrastive_loss(embedding, labels, step=step, **settings), rtol=0, atol=0
        )


def test_built_from_a_config():
    assert repr(MODELS.build({'type': 'mmkd_ext.ContrastiveLoss', 'margin': 1.0})) == (
        "ContrastiveLoss(loss_weight=1.0, gather=False, margin=1.0, mining='distance', seed=0)"
    )


def test_refused_at_construction():
    with pytest.raises(ValueError, match='ContrastiveLoss: expected margin >= 0 but got -1'):
        ContrastiveLoss(margin=-1)
