from functools import partial

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.nn import functional as F

from mmkd_ext.functional import sinkhorn_knopp
from mmkd_ext.models.multi_view import batch_labels, discovery_targets, known_class_loss

V, L, H, K, C = 3, 2, 4, 5, 9


def test_targets_agree_with_a_loop_over_views_and_heads():
    labels = torch.tensor([3, -1, 0, -1, -1, 4])
    logits = torch.rand(V, H, 6, C, dtype=torch.float64) * 2 - 1
    targets = discovery_targets(logits, labels, num_known=K, num_large=L, assign=sinkhorn_knopp)
    expected = torch.zeros_like(logits)
    for v in range(L):
        for h in range(H):
            for row, label in enumerate(labels.tolist()):
                if label >= 0:
                    expected[v, h, row, label] = 1
            expected[v, h, labels < 0, K:] = sinkhorn_knopp(logits[v, h, labels < 0, K:])
    torch.testing.assert_close(targets, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('labels', [[0, 1, 2, 3], [-1, -1, -1, -1]])
def test_targets_of_uniform_batches_are_distributions(labels):
    logits = torch.randn(V, H, 4, C, requires_grad=True)
    targets = discovery_targets(logits, torch.tensor(labels), num_known=K, num_large=L, assign=sinkhorn_knopp)
    torch.testing.assert_close(targets[:L].sum(-1), torch.ones(L, H, 4))
    assert (targets[L:] == 0).all()
    assert not targets.requires_grad


def test_in_the_generalised_setting_unlabelled_rows_get_any_class():
    logits = torch.rand(3, 2, 40, 5) * 2 - 1
    labels = torch.arange(40) % 8
    labels[labels > 2] = -1
    targets = discovery_targets(
        logits, labels, num_known=3, num_large=2, assign=partial(sinkhorn_knopp, num_iters=100), assign_to='all'
    )
    torch.testing.assert_close(targets[:2].sum(-1), torch.ones(2, 2, 40))
    assert targets[2].abs().max() == 0
    is_labelled = labels >= 0
    one_hot = torch.nn.functional.one_hot(labels[is_labelled], 5).float()
    torch.testing.assert_close(targets[:2, :, is_labelled], one_hot.expand(2, 2, -1, -1))
    assert (targets[:2, :, ~is_labelled, :3].sum(-1) > 0).all()
    for v in range(2):
        for h in range(2):
            # Converged, each class has received as many rows of the whole batch, labelled ones among them.
            assigned = sinkhorn_knopp(logits[v, h], num_iters=100)
            torch.testing.assert_close(assigned.sum(0), torch.full((5,), 8.0), rtol=1e-3, atol=0)
            torch.testing.assert_close(targets[v, h, ~is_labelled], assigned[~is_labelled])


@pytest.mark.parametrize('labels', [[-1] * 4, [0, 1, 2, 0]])
def test_generalised_targets_of_uniform_batches_are_distributions(labels):
    targets = discovery_targets(
        torch.rand(2, 3, 4, 5), torch.tensor(labels), num_known=3, num_large=2, assign=sinkhorn_knopp, assign_to='all'
    )
    torch.testing.assert_close(targets.sum(-1), torch.ones(2, 3, 4))


def test_known_class_loss_is_the_mean_over_labelled_rows_and_views():
    logits = torch.randn(V, 6, K, dtype=torch.float64)
    labels = torch.tensor([3, -1, 0, -1, 2, 4])
    expected = torch.stack([F.cross_entropy(view[labels >= 0] / 0.1, labels[labels >= 0]) for view in logits]).mean()
    torch.testing.assert_close(known_class_loss(logits, labels, temperature=0.1), expected)


def test_known_class_loss_without_labels_is_a_differentiable_zero():
    logits = torch.randn(V, 6, K, requires_grad=True)
    loss = known_class_loss(logits, torch.full((6,), -1), temperature=0.1)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def _samples(*labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def test_labels_are_collected_on_the_cpu():
    assert batch_labels(_samples(0, -1, 4), num_rows=3, num_known=5).tolist() == [0, -1, 4]


@pytest.mark.parametrize('samples', [None, [BaseDataElement()]])
def test_missing_labels_are_refused(samples):
    with pytest.raises(TypeError, match=r'data_samples .*gt_label'):
        batch_labels(samples, num_rows=1, num_known=5)


def test_label_of_an_unlabelled_class_is_refused():
    with pytest.raises(ValueError, match=r'5 known classes .*got 5'):
        batch_labels(_samples(0, 5), num_rows=2, num_known=5)


def test_wrong_number_of_labels_is_refused():
    with pytest.raises(ValueError, match=r'2 labels .*3 rows'):
        batch_labels(_samples(0, 1), num_rows=3, num_known=5)
