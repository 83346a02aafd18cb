"""Losses of metric learning: weight times function with the noise of the step, which is saved: a resume draws alike."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmkd_ext.functional import contrastive_loss, triplet_loss
from mmkd_ext.losses import ContrastiveLoss, TripletLoss
from mmkd_ext.losses.metric_learning import MetricLoss


class Spread(MetricLoss):
    """Something to weigh: the mean length, in units of the step."""

    def __init__(self, loss_weight=1.0, *, margin=0.2, mining='distance', seed=0, gather=False, **settings):
        super().__init__(loss_weight, margin=margin, mining=mining, seed=seed, gather=gather, **settings)

    def compare(self, embedding, labels):
        return embedding.norm(dim=1).mean() * (1 + self.step)


def test_weight_times_comparison_with_the_step_of_the_batch():
    embedding, labels = torch.randn(5, 3), torch.arange(5)
    loss, expected = Spread(0.5), 0.5 * embedding.norm(dim=1).mean()
    torch.testing.assert_close([loss(embedding, labels) for _ in range(3)], [expected, 2 * expected, 3 * expected])
    loss.eval()
    torch.testing.assert_close([loss(embedding, labels) for _ in range(2)], [4 * expected] * 2)


def test_the_step_is_saved_with_the_weights():
    embedding, labels = torch.randn(5, 3), torch.arange(5)
    undisturbed, resumed = Spread(), Spread()
    for _ in range(3):
        undisturbed(embedding, labels)
    resumed.load_state_dict(undisturbed.state_dict())
    torch.testing.assert_close(resumed(embedding, labels), undisturbed(embedding, labels), rtol=0, atol=0)
    assert resumed.step == 4


def test_the_step_keeps_its_type_in_half_precision():
    assert nn.Sequential(Spread()).half()[0].step.dtype == torch.int64


@pytest.mark.parametrize('kind', [TripletLoss, ContrastiveLoss])
def test_on_a_gpu_the_host_reads_no_value(kind):
    """Fake tensors have no values: whoever asks for one gets an error. Labels may come from the host."""
    for mining in ['all', 'random', 'hard', 'semi-hard', 'distance']:
        with FakeTensorMode():
            loss = kind(mining=mining).to('cuda')
            found = [loss(torch.ones(6, 3, device='cuda'), torch.tensor([0, 0, 1, 1, 2, -1])) for _ in range(2)]
        assert all(value.device.type == 'cuda' for value in found)


def test_print_shows_all_settings():
    assert repr(Spread(2.0, squared=True)) == (
        "Spread(loss_weight=2.0, gather=False, margin=0.2, mining='distance', seed=0, squared=True)"
    )


def test_bad_settings():
    for kind in (ContrastiveLoss, Spread, TripletLoss):
        for error, setting, value in (
            (ValueError, 'loss_weight', -1.0),
            (ValueError, 'margin', -1),
            (TypeError, 'margin', '1'),
            (ValueError, 'mining', 'easy'),
        ):
            with pytest.raises(error, match=f'^{kind.__name__}: expected {setting} .*{value}'):
                kind(**{setting: value})


@pytest.mark.parametrize(
    ('kind', 'function', 'tried'),
    [
        (ContrastiveLoss, contrastive_loss, [{}, dict(margin=0.5, mining='all'), dict(seed=3)]),
        (TripletLoss, triplet_loss, [{}, dict(margin=0.5, squared=True, mining='all'), dict(seed=3)]),
    ],
)
def test_weight_times_function(kind, function, tried):
    for settings in tried:
        loss = kind(0.5, **settings)
        for step in range(3):
            embedding, labels = torch.randn(12, 4), torch.arange(12) % 3
            expected = 0.5 * function(embedding, labels, step=step, **settings)
            torch.testing.assert_close(loss(embedding, labels), expected, rtol=0, atol=0)


def test_built_from_a_config():
    assert repr(MODELS.build({'type': 'mmkd_ext.ContrastiveLoss', 'margin': 1.0})) == (
        "ContrastiveLoss(loss_weight=1.0, gather=False, margin=1.0, mining='distance', seed=0)"
    )
    assert repr(MODELS.build({'type': 'mmkd_ext.TripletLoss', 'mining': 'hard'})) == (
        "TripletLoss(loss_weight=1.0, gather=False, margin=0.2, mining='hard', seed=0, squared=False)"
    )
