"""Prototypical networks against the formula of the paper in plain float64, sample by sample."""

import math

import pytest
import torch

from mmkd_ext.functional import nearest_prototype, prototypical_loss

LABELS = torch.tensor([7, 7, 7, 7, 2, 2, 2, 2, 40, 40, 40, 40])


def embeddings(dtype=torch.float64, num_dims=5):
    return torch.randn(len(LABELS), num_dims, dtype=dtype)


def published(embedding, labels, num_shots):
    """Algorithm 1 of arXiv 1703.05175, with the first samples of each class as support."""
    members = {}
    for row, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(row)
    prototypes = {
        label: sum(embedding[row] for row in rows[:num_shots]) / len(rows[:num_shots])
        for label, rows in members.items()
    }
    losses = []
    for label, rows in members.items():
        for row in rows[num_shots:]:
            square = {k: float(sum((embedding[row] - c) ** 2)) for k, c in prototypes.items()}
            losses.append(square[label] + math.log(sum(math.exp(-d) for d in square.values())))
    return sum(losses) / len(losses)


@pytest.mark.parametrize('num_shots', [1, 2, 3])
def test_published_formula(num_shots):
    embedding = embeddings()
    loss = prototypical_loss(embedding, LABELS, num_shots)
    assert float(loss) == pytest.approx(published(embedding, LABELS, num_shots), rel=1e-12)


def test_classes_of_different_size_and_in_any_order():
    embedding = embeddings()
    labels = torch.tensor([3, 1, 3, 5, 1, 3, 3, 1, 9, 3, 1, 5])
    assert float(prototypical_loss(embedding, labels, 2)) == pytest.approx(published(embedding, labels, 2), rel=1e-12)


@pytest.mark.parametrize('num_shots', [1, 2])
def test_gradient(num_shots):
    embedding = embeddings(num_dims=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prototypical_loss(x, LABELS, num_shots), embedding)


def test_order_of_shots_of_queries_and_of_classes_does_not_matter():
    embedding = embeddings()
    expected = prototypical_loss(embedding, LABELS, 2)
    for order in (
        [1, 0, 2, 3, 5, 4, 6, 7, 9, 8, 10, 11],
        [0, 1, 3, 2, 4, 5, 7, 6, 8, 9, 11, 10],
        [*range(8, 12), *range(8)],
    ):
        torch.testing.assert_close(prototypical_loss(embedding[order], LABELS[order], 2), expected)


def test_rotation_and_shift_do_not_matter():
    embedding = embeddings()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    expected = prototypical_loss(embedding, LABELS, 1)
    torch.testing.assert_close(prototypical_loss(embedding @ rotation + 3, LABELS, 1), expected)


def test_far_from_the_origin_float32_is_as_good_as_near():
    embedding = embeddings(torch.float32)
    far = embedding + 1000
    exact = published(far.double(), LABELS, 1)
    assert float(prototypical_loss(far, LABELS, 1)) == pytest.approx(exact, rel=1e-4)


def test_without_queries_there_is_nothing_to_learn():
    embedding = embeddings().requires_grad_()
    loss = prototypical_loss(embedding, LABELS, 4)
    loss.backward()
    assert loss == 0
    assert (embedding.grad == 0).all()
    assert prototypical_loss(embedding[:0], LABELS[:0], 1) == 0


@pytest.mark.parametrize('embedding', [torch.zeros(12, 5), 1e4 * torch.ones(12, 5), 1e4 * torch.randn(12, 5)])
def test_finite_for_a_collapsed_and_for_a_huge_embedding(embedding):
    embedding = embedding.requires_grad_()
    loss = prototypical_loss(embedding, LABELS, 1)
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad.isfinite().all()


def test_collapsed_embedding_guesses():
    assert float(prototypical_loss(torch.ones(12, 5), LABELS, 1)) == pytest.approx(math.log(3))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    embedding = embeddings(dtype)
    loss = prototypical_loss(embedding, LABELS, 1)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(published(embedding.double(), LABELS, 1), rel=1e-5)


def test_errors():
    with pytest.raises(ValueError, match='expected num_shots >= 1 but got 0'):
        prototypical_loss(embeddings(), LABELS, 0)
    with pytest.raises(ValueError, match=r'expected one label per sample, shape \(12,\), but got \(12, 1\)'):
        prototypical_loss(embeddings(), LABELS[:, None], 1)
    with pytest.raises(ValueError, match=r'expected embedding of shape \(B, D\)'):
        prototypical_loss(embeddings()[None], LABELS, 1)


def test_nearest_prototype_by_brute_force():
    support, query = torch.randn(4, 3, 2, 5), torch.randn(4, 7, 5)
    expected = [
        [min(range(3), key=lambda c: float((q - support[e, c].mean(0)).square().sum())) for q in query[e]]
        for e in range(4)
    ]
    assert nearest_prototype(support, query).tolist() == expected
