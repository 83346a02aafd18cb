import pytest
import torch
from torch.nn import functional as F

from mmkd_ext.heads import ClusterHead
from mmkd_ext.registry import MODELS


def test_the_largest_logit_is_that_of_the_nearest_centre():
    head = MODELS.build({'type': 'mmkd_ext.ClusterHead', 'in_channels': 6, 'num_clusters': 4}).double()
    features = torch.randn(50, 6, dtype=torch.float64)
    head.centre.copy_(torch.randn(4, 6))  # of different lengths
    distance = torch.cdist(F.normalize(features, dim=1), head.centre)
    torch.testing.assert_close(head(features), 1 - distance.square() / 2)
    assert torch.equal(head(5 * features).argmax(1), distance.argmin(1))


def test_unit_centres_give_cosines():
    head = ClusterHead(6, 4)
    head.centre.copy_(F.normalize(torch.randn(4, 6), dim=1))
    features = torch.randn(7, 6)
    torch.testing.assert_close(head(features), F.cosine_similarity(features[:, None], head.centre, dim=-1))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_its_input(dtype):
    head = ClusterHead(6, 4)
    head.centre.normal_()
    features = torch.randn(7, 6).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        logits = head(features)
    torch.testing.assert_close(logits, head(features.float()))


def test_nothing_is_trained_and_checkpoints_keep_the_centres():
    head = ClusterHead(6, 4)
    assert list(head.parameters()) == []
    assert head(torch.randn(3, 6)).unique().numel() == 1
    head.centre.normal_()
    other = ClusterHead(6, 4)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.centre, head.centre)
    assert other.num_clusters == 4


def test_errors():
    with pytest.raises(ValueError, match='expected positive sizes but got in_channels=6, num_clusters=0'):
        ClusterHead(6, 0)
