"""CCKDLoss is its weight times the function; the paper's objective is a matter of weights."""

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import correlation_congruence
from mmkd_ext.losses import CCKDLoss

PRINTED = "CCKDLoss(loss_weight=100.0, gather=False, kernel='gaussian', gamma=0.4, order=None, normalize=True)"


@pytest.mark.parametrize(
    'settings',
    [{}, {'order': 2, 'gamma': 0.8}, {'gamma': 'median'}, {'kernel': 'mmd', 'normalize': False}],
    ids=str,
)
def test_weight_times_function(settings):
    student, teacher = torch.randn(5, 4), torch.randn(5, 7)
    torch.testing.assert_close(
        CCKDLoss(0.5, **settings)(student, teacher), 0.5 * correlation_congruence(student, teacher, **settings)
    )


def test_built_from_a_config():
    assert repr(MODELS.build({'type': 'mmkd_ext.CCKDLoss'})) == PRINTED


def test_objective_of_the_paper_by_weights():
    # alpha CE + (1 - alpha) KD + beta CC, each with its weight where a config writes it.
    alpha, beta, temperature = 0.3, 20.0, 4.0
    logits, teacher = torch.randn(6, 5), torch.randn(6, 5)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    task = MODELS.build({'type': 'mmpretrain.CrossEntropyLoss', 'loss_weight': alpha})
    kd = MODELS.build({'type': 'mmkd_ext.SoftTargetLoss', 'temperature': temperature, 'loss_weight': 1 - alpha})
    cc = MODELS.build({'type': 'mmkd_ext.CCKDLoss', 'loss_weight': beta, 'order': 2})
    soft = torch.nn.functional.softmax
    p, q = soft(teacher / temperature, 1), soft(logits / temperature, 1)
    expected = alpha * torch.nn.functional.cross_entropy(logits, labels)
    expected += (1 - alpha) * temperature**2 * (p * (p / q).log()).sum() / 6
    expected += beta * correlation_congruence(logits, teacher, order=2)
    torch.testing.assert_close(task(logits, labels) + kd(logits, teacher) + cc(logits, teacher), expected)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'kernel': 'rbf'}, 'expected kernel in .* but got'),
        ({'gamma': -1.0}, 'expected gamma > 0 but got -1.0'),
        ({'order': 0}, 'expected order >= 1 with the gaussian kernel, or None, but got 0'),
        ({'loss_weight': -1.0}, 'expected loss_weight >= 0 but got -1.0'),
    ],
)
def test_refused_at_construction(settings, message):
    with pytest.raises(ValueError, match=f'CCKDLoss: {message}'):
        CCKDLoss(**settings)
