"""Prototypical networks against the formula of the paper, sample by sample; episodes against what they promise."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mmkd_ext.functional import draw_episodes, nearest_prototype, prototypical_loss

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


# --------------------------------------------------------------------------------------------------
# Episodes.

# Twelve classes with 8 to 19 samples, mixed; names of classes are any numbers.
SAMPLE_LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(12) * 5 - 7, np.arange(8, 20)))


def draw(seed=0, num_episodes=50, num_ways=5, num_samples=6):
    return draw_episodes(SAMPLE_LABELS, num_ways, num_samples, num_episodes, np.random.default_rng(seed))


def test_ways_are_different_classes_and_samples_different_members_of_them():
    episodes = draw()
    assert episodes.shape == (50, 5, 6)
    labels = SAMPLE_LABELS[episodes]
    assert (labels == labels[:, :, :1]).all()
    for episode in episodes:
        assert len(set(SAMPLE_LABELS[episode[:, 0]])) == 5
        assert len(set(episode.ravel())) == 30


def test_the_seed_decides():
    np.testing.assert_array_equal(draw(seed=3), draw(seed=3))
    assert (draw(seed=3) != draw(seed=4)).any()


def test_more_episodes_begin_with_the_same():
    np.testing.assert_array_equal(draw(num_episodes=9), draw(num_episodes=50)[:9])


def test_a_class_may_be_used_up():
    episodes = draw_episodes(np.repeat([4, 2], 3), 2, 3, 5, np.random.default_rng(0))
    assert all(sorted(episode.ravel()) == list(range(6)) for episode in episodes)


def test_classes_and_members_are_equally_likely():
    episodes = draw(num_episodes=4000)
    first = episodes[:, 0]
    counts = np.unique(SAMPLE_LABELS[first[:, 0]], return_counts=True)[1]
    assert chisquare(counts).pvalue > 1e-3
    smallest = np.flatnonzero(SAMPLE_LABELS == -7)
    drawn = first[SAMPLE_LABELS[first[:, 0]] == -7, 0]
    assert chisquare([(drawn == member).sum() for member in smallest]).pvalue > 1e-3


@pytest.mark.parametrize(
    ('num_ways', 'num_samples', 'found'),
    [(13, 6, '12, of which 0'), (5, 9, '12, of which 1'), (5, 20, '12, of which 12')],
)
def test_too_little_data(num_ways, num_samples, found):
    with pytest.raises(ValueError, match=f'expected at least {num_ways} classes, each .* but got {found} are smaller'):
        draw(num_ways=num_ways, num_samples=num_samples)
