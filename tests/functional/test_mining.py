"""Mining against the official code's choices and probabilities, loops, and the frequencies of draws."""

import math

import pytest
import torch
from scipy import stats

from mmkd_ext.functional.metric_learning import (
    distance_weights,
    embedding_distances,
    mine_negatives,
    pair_masks,
    random_weights,
)

CASES = [f'{kind}_{size}' for kind in ('plain', 'normalised', 'dup') for size in ('B8_D4', 'B32_D4', 'B32_D64')]


def load(vectors, miner, case, *names):
    return [torch.from_numpy(vectors[f'{miner}_{case}_{name}']) for name in names]


def mine(embedding, labels, mining, seed=0, step=0):
    return mine_negatives(embedding, torch.cdist(embedding, embedding), labels, mining, seed, step)


# --- the official code


@pytest.mark.parametrize('dtype', ['f64', 'f32'])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('miner', ['DistanceWeighted', 'RandomNegative'])
def test_official_probabilities(golden, miner, case, dtype):
    vectors = golden('rkd_triplet_samplers')
    embedding, labels, anchor, positive, weights = load(
        vectors, miner, f'{case}_{dtype}', 'emb', 'labels', 'anchor', 'pos', 'multinomial_weights'
    )
    expected = (weights / weights.sum(dim=1, keepdim=True)).double()
    ours = distance_weights(embedding, labels) if miner == 'DistanceWeighted' else random_weights(labels)
    # An exponent of D / 2 multiplies the rounding of float32's distances.
    rtol, atol = (1e-9, 1e-12) if dtype == 'f64' and miner == 'DistanceWeighted' else (2e-4, 1e-6)
    torch.testing.assert_close(ours[anchor].double(), expected, rtol=rtol, atol=atol)
    valid = mine(embedding, labels, 'random').valid_NN
    assert torch.equal(valid.nonzero(), torch.stack([anchor, positive], dim=1))


@pytest.mark.parametrize('case', [case for case in CASES if not case.startswith('dup')])
@pytest.mark.parametrize(('miner', 'mining'), [('HardNegative', 'hard'), ('SemiHardNegative', 'semi-hard')])
def test_official_choices(golden, miner, mining, case):
    vectors = golden('rkd_triplet_samplers')
    embedding, labels, anchor, positive, negative = load(
        vectors, miner, f'{case}_f64', 'emb', 'labels', 'anchor', 'pos', 'L2Triplet_neg'
    )
    assert torch.equal(mine(embedding, labels, mining).negative_NN[anchor, positive], negative)


# --- loops


def looped_weights(embedding, labels, near=0.5, far=1.4):
    unit = [[value / math.hypot(*row) for value in row] for row in embedding.tolist()]
    num_dims, rows = len(unit[0]), []
    for i, anchor in enumerate(unit):
        weights, fallback = [], []
        for j, other in enumerate(unit):
            is_negative = labels[i] >= 0 and labels[j] >= 0 and labels[i] != labels[j]
            distance = math.dist(anchor, other)
            d = max(distance, near)
            density = d ** (num_dims - 2) * (1 - d * d / 4) ** ((num_dims - 3) / 2) if d < 2 else 0
            weights.append(1 / density if is_negative and distance < far else 0.0)
            fallback.append(float(is_negative))
        weights = weights if any(weights) else fallback
        rows.append([weight / (sum(weights) or 1) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize('num_dims', [2, 3, 8, 40])
def test_looped_weights(num_dims):
    embedding = torch.randn(15, num_dims, dtype=torch.float64)
    embedding[5:9] = embedding[0] + 0.3 * torch.randn(4, num_dims, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 0, 4, 4, 5, -1, -1, 6])
    torch.testing.assert_close(distance_weights(embedding, labels), looped_weights(embedding, labels.tolist()))


def test_opposite_points_are_at_distance_two():
    embedding = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    weights = distance_weights(embedding, torch.tensor([0, 1, 2]))
    # All others are farther than 1.4 here (sqrt(2) and 2), so any negative is as good.
    torch.testing.assert_close(weights, torch.tensor([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]))


def test_weights_make_distances_of_random_points_uniform():
    """The very property: of points all over the sphere, weighing by 1 / q leaves distances uniform."""
    embedding = torch.randn(400, 6, dtype=torch.float64)
    weights = distance_weights(embedding, torch.arange(400), near=0.5, far=1.4)
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    distance = torch.cdist(unit, unit)
    shares = [weights[(distance > low) & (distance <= low + 0.3)].sum() for low in (0.5, 0.8, 1.1)]
    shares = torch.stack(shares) / sum(shares)
    assert (shares - 1 / 3).abs().max() < 0.02


def test_hard_and_semi_hard_by_loops():
    embedding, labels = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 4
    distance = torch.cdist(embedding, embedding)
    hard, semi_hard = (mine(embedding, labels, mining).negative_NN for mining in ('hard', 'semi-hard'))
    for a in range(20):
        negatives = sorted((distance[a, n].item(), n) for n in range(20) if labels[n] != labels[a])
        for p in range(20):
            if p == a or labels[p] != labels[a]:
                continue
            farther = [pair for pair in negatives if pair[0] > distance[a, p]]
            assert hard[a, p] == negatives[0][1]
            assert semi_hard[a, p] == (farther[0] if farther else negatives[-1])[1]


# --- draws


@pytest.mark.parametrize('mining', ['random', 'distance'])
def test_frequencies_are_the_probabilities(mining):
    embedding, labels = torch.randn(12, 8), torch.arange(12) % 4
    weights = random_weights(labels) if mining == 'random' else distance_weights(embedding, labels)
    drawn = torch.stack([mine(embedding, labels, mining, step=step).negative_NN for step in range(1500)])
    counts = torch.zeros(12, 12).scatter_add_(1, drawn.permute(1, 0, 2).reshape(12, -1), torch.ones(12, 1500 * 12))
    assert (counts[weights == 0] == 0).all()
    for row, expected in zip(counts, weights.double(), strict=True):
        wanted = expected[expected > 0] * row.sum()
        assert stats.chisquare(row[expected > 0], wanted * row.sum() / wanted.sum()).pvalue > 1e-5


def test_seed_and_step_alone_decide():
    embedding, labels = torch.randn(20, 6), torch.arange(20) % 5
    first = mine(embedding, labels, 'distance', seed=1, step=7).negative_NN
    torch.rand(1000)
    assert torch.equal(mine(embedding, labels, 'distance', seed=1, step=torch.tensor(7)).negative_NN, first)
    assert not torch.equal(mine(embedding, labels, 'distance', seed=1, step=8).negative_NN, first)
    assert not torch.equal(mine(embedding, labels, 'distance', seed=2, step=7).negative_NN, first)


# --- distances


def test_distances_are_those_of_the_formula_and_zero_between_equal_points():
    embedding = torch.randn(7, 3, dtype=torch.float64)
    embedding[4] = embedding[1]
    found = embedding_distances('who', embedding, torch.zeros(7))
    expected = [[math.dist(a, b) for b in embedding.tolist()] for a in embedding.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found[1, 4] == 0


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_no_distance_of_what_is_no_number(monkeypatch, value):
    embedding = torch.tensor([[1.0, 2.0], [value, 2.0], [5.0, value]])
    with pytest.raises(ValueError, match=r'who: expected finite numbers in embedding .* in 2 of 6 places'):
        embedding_distances('who', embedding, torch.zeros(3))
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert embedding_distances('who', embedding, torch.zeros(3)).isnan().all()


# --- degenerate batches


@pytest.mark.parametrize('mining', ['random', 'hard', 'semi-hard', 'distance'])
@pytest.mark.parametrize(
    ('labels', 'num_triplets'), [([0, 0, 0], 0), ([0, 1, 2], 0), ([-1, -1, -1], 0), ([0, 0, -1], 0), ([0, 0, 1], 2)]
)
def test_a_cell_counts_only_with_a_positive_and_a_negative(mining, labels, num_triplets):
    mined = mine(torch.randn(3, 4), torch.tensor(labels), mining)
    assert mined.valid_NN.sum() == num_triplets


@pytest.mark.parametrize('mining', ['random', 'hard', 'semi-hard', 'distance'])
@pytest.mark.parametrize('scale', [0.0, 1e-20, 1e8])
def test_valid_cells_have_a_negative(mining, scale):
    embedding, labels = scale * torch.randn(16, 300), torch.arange(16) % 4
    mined = mine(embedding, labels, mining)
    assert mined.valid_NN.sum() == 16 * 3
    assert (labels[mined.negative_NN] != labels[:, None])[mined.valid_NN].all()


def test_samples_without_a_label_are_in_no_pair():
    positive, negative = pair_masks(torch.tensor([0, 0, 1, -1, -1]))
    assert positive.nonzero().tolist() == [[0, 1], [1, 0]]
    assert negative.nonzero().tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]


def test_unknown_word():
    with pytest.raises(ValueError, match=r"mine_negatives: expected mining in \('random', 'hard', 'semi-hard'"):
        mine(torch.randn(3, 2), torch.arange(3), 'easy')
