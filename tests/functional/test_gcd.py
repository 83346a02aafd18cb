"""InfoNCE and supervised contrastive loss against loops in float64, and their invariances."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmkd_ext.functional import info_nce, supervised_contrastive

F64 = {'rtol': 1e-10, 'atol': 1e-12}
LABELS = [0, -1, 2, 0, -1, 2, 1]


def looped(embedding, groups, temperature):
    """The formula as it is read: each row in turn, its positives, and all other rows that take part."""
    num_views, batch_size, _ = embedding.shape
    rows = [
        (embedding[v, b].double() / embedding[v, b].double().norm(), groups[b])
        for v in range(num_views)
        for b in range(batch_size)
        if groups[b] >= 0
    ]
    losses = []
    for i, (z_i, group) in enumerate(rows):
        others = [(z_n, g) for n, (z_n, g) in enumerate(rows) if n != i]
        total = sum(math.exp(float(z_i @ z_n) / temperature) for z_n, _ in others)
        terms = [-math.log(math.exp(float(z_i @ z_p) / temperature) / total) for z_p, g in others if g == group]
        losses.append(sum(terms) / len(terms))
    return torch.tensor(sum(losses) / len(losses), dtype=torch.float64)


def embeddings(num_views=2, batch_size=7, dims=5):
    return torch.randn(num_views, batch_size, dims, dtype=torch.float64)


@pytest.mark.parametrize('num_views', [2, 3])
@pytest.mark.parametrize('temperature', [1.0, 0.07])
def test_formula(num_views, temperature):
    z = embeddings(num_views)
    torch.testing.assert_close(info_nce(z, temperature=temperature), looped(z, range(7), temperature), **F64)
    torch.testing.assert_close(
        supervised_contrastive(z, torch.tensor(LABELS), temperature=temperature), looped(z, LABELS, temperature), **F64
    )


def test_two_views_are_cross_entropy_over_all_other_rows():
    z = F.normalize(embeddings(), dim=-1).flatten(0, 1)
    scores = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(scores, torch.arange(14).roll(7))
    torch.testing.assert_close(info_nce(z.view(2, 7, 5), temperature=0.5), expected, **F64)


def test_gradcheck():
    z = embeddings(2, 4, 3).requires_grad_()
    labels = torch.tensor([0, -1, 1, 0])
    torch.autograd.gradcheck(lambda x: info_nce(x, temperature=0.5), z)
    torch.autograd.gradcheck(lambda x: supervised_contrastive(x, labels, temperature=0.5), z)


@pytest.mark.parametrize('loss', [info_nce, lambda z: supervised_contrastive(z, torch.tensor(LABELS))])
def test_invariances(loss):
    z = embeddings()
    expected = loss(z)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    lengths = torch.rand(2, 7, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(loss(lengths * z @ rotation), expected, **F64)
    torch.testing.assert_close(loss(z.flip(0)), expected, **F64)


def test_labels_matter_only_as_a_partition_and_unlabelled_images_not_at_all():
    z = embeddings()
    expected = supervised_contrastive(z, torch.tensor(LABELS))
    renamed = torch.tensor([{0: 5, 1: 0, 2: 9, -1: -1}[label] for label in LABELS])
    torch.testing.assert_close(supervised_contrastive(z, renamed), expected, **F64)
    spoiled = z.clone()
    spoiled[:, [1, 4]] = torch.randn(2, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(supervised_contrastive(spoiled, torch.tensor(LABELS)), expected, **F64)
    spoiled.requires_grad_()
    supervised_contrastive(spoiled, torch.tensor(LABELS)).backward()
    assert spoiled.grad[:, [1, 4]].abs().max() == 0


def test_without_labels_or_images_it_is_a_differentiable_zero():
    z = embeddings().requires_grad_()
    loss = supervised_contrastive(z, torch.full((7,), -1))
    loss.backward()
    assert loss == 0
    assert z.grad.abs().max() == 0
    empty = torch.zeros(2, 0, 5, requires_grad=True)
    for loss in (info_nce(empty), supervised_contrastive(empty, torch.zeros(0, dtype=torch.long))):
        loss.backward()
        assert loss == 0


def test_one_image_has_nothing_to_be_told_from():
    z = embeddings(2, 1)
    assert info_nce(z) == 0
    assert supervised_contrastive(z, torch.tensor([3])) == 0


def test_equal_embeddings_give_the_logarithm_of_the_number_of_others():
    z = torch.ones(2, 6, 4)
    torch.testing.assert_close(info_nce(z, temperature=0.07), torch.tensor(math.log(11)))
    torch.testing.assert_close(supervised_contrastive(z, torch.tensor([0, 1, 0, 1, -1, -1])), torch.tensor(math.log(7)))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_finite_and_float32_for_extreme_embeddings_under_autocast(dtype):
    z = (embeddings() * 1e4).to(dtype)
    z[0, 0] = 0
    z.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        loss = info_nce(z, temperature=0.01) + supervised_contrastive(z, torch.tensor(LABELS), temperature=0.01)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_errors():
    labels = torch.tensor(LABELS)
    with pytest.raises(ValueError, match=r'info_nce: expected embedding of shape \(V, B, D\) but got \(7, 5\)'):
        info_nce(torch.zeros(7, 5))
    with pytest.raises(ValueError, match='info_nce: expected at least 2 views but got 1; check the multi-view'):
        info_nce(torch.zeros(1, 7, 5))
    with pytest.raises(ValueError, match='supervised_contrastive: expected temperature > 0 but got 0'):
        supervised_contrastive(embeddings(), labels, temperature=0)
    with pytest.raises(ValueError, match=r'expected labels of shape \(7,\) but got \(14,\); pass one label per image'):
        supervised_contrastive(embeddings(), labels.repeat(2))
