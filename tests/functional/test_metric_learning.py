"""Mining and the losses on it against the official code's choices, probabilities and values, and against loops."""

import functools
import math

import pytest
import torch
from scipy import stats

from mmkd_ext.functional import contrastive_loss, triplet_loss
from mmkd_ext.functional.metric_learning import (
    distance_weights,
    embedding_distances,
    mine_negatives,
    pair_masks,
    random_weights,
)

BOTH = pytest.mark.parametrize('loss', [triplet_loss, contrastive_loss])
CASES = [f'{kind}_{size}' for kind in ('plain', 'normalised', 'dup') for size in ('B8_D4', 'B32_D4', 'B32_D64')]


def load(vectors, miner, case, *names):
    return [torch.from_numpy(vectors[f'{miner}_{case}_{name}']) for name in names]


def mine(embedding, labels, mining, seed=0, step=0):
    return mine_negatives(embedding, torch.cdist(embedding, embedding), labels, mining, seed, step)


# --------------------------------------------------------------------------------------------------
# Mining.


def test_official_probabilities(golden):
    vectors = golden('rkd_triplet_samplers')
    for dtype in ['f64', 'f32']:
        for case in CASES:
            for miner in ['DistanceWeighted', 'RandomNegative']:
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


def test_official_choices(golden):
    vectors = golden('rkd_triplet_samplers')
    for case in [case for case in CASES if not case.startswith('dup')]:
        for miner, mining in [('HardNegative', 'hard'), ('SemiHardNegative', 'semi-hard')]:
            embedding, labels, anchor, positive, negative = load(
                vectors, miner, f'{case}_f64', 'emb', 'labels', 'anchor', 'pos', 'L2Triplet_neg'
            )
            assert torch.equal(mine(embedding, labels, mining).negative_NN[anchor, positive], negative)


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


def test_looped_weights():
    for num_dims in [2, 3, 8, 40]:
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


def test_a_cell_counts_only_with_a_positive_and_a_negative():
    for mining in ['random', 'hard', 'semi-hard', 'distance']:
        for labels, num_triplets in [
            ([0, 0, 0], 0),
            ([0, 1, 2], 0),
            ([-1, -1, -1], 0),
            ([0, 0, -1], 0),
            ([0, 0, 1], 2),
        ]:
            mined = mine(torch.randn(3, 4), torch.tensor(labels), mining)
            assert mined.valid_NN.sum() == num_triplets


def test_valid_cells_have_a_negative():
    for mining in ['random', 'hard', 'semi-hard', 'distance']:
        for scale in [0.0, 1e-20, 1e8]:
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


# --------------------------------------------------------------------------------------------------
# The triplet loss.

MININGS = ['all', 'random', 'hard', 'semi-hard', 'distance']


def looped(embedding, triplets, margin=0.2, squared=False, eps=0.0):
    """The formula; eps is what the official code adds to each coordinate of a difference."""
    rows = embedding.tolist()

    def distance(i, j):
        result = math.hypot(*(x - y + eps for x, y in zip(rows[i], rows[j], strict=True)))
        return result**2 if squared else result

    hinges = [max(distance(a, p) - distance(a, n) + margin, 0.0) for a, p, n in triplets]
    return math.fsum(hinges) / max(len(hinges), 1)


def triplets_of(embedding, labels, mining, seed=0, step=0):
    if mining == 'all':
        everything = torch.cartesian_prod(*[torch.arange(len(labels))] * 3)
        a, p, n = everything.unbind(1)
        wanted = (a != p) & (labels[a] == labels[p]) & (labels[a] != labels[n])
        return everything[wanted].tolist()
    mined = mine_negatives(embedding, torch.cdist(embedding, embedding), labels, mining, seed, step)
    return [(a, p, mined.negative_NN[a, p].item()) for a, p in mined.valid_NN.nonzero().tolist()]


def random_case(num_samples=12, num_classes=4):
    embedding = torch.nn.functional.normalize(torch.randn(num_samples, 6, dtype=torch.float64))
    return embedding, torch.arange(num_samples) % num_classes


OFFICIAL = ['AllPairs', 'RandomNegative', 'DistanceWeighted', 'HardNegative', 'SemiHardNegative']
WORDS = dict(zip(OFFICIAL, ['all', 'random', 'distance', 'hard', 'semi-hard'], strict=True))


@pytest.mark.parametrize('case', ['plain_B8_D4', 'plain_B32_D64', 'normalised_B32_D4', 'dup_B8_D4'])
@pytest.mark.parametrize('sampler', OFFICIAL)
def test_official_values(golden, sampler, case):
    """With its shift of 1e-6 the loop gives the official value, without it ours: nothing else differs."""
    vectors = {name: torch.from_numpy(value) for name, value in golden('rkd_triplet_samplers').items()}
    prefix = f'{sampler}_{case}_f64_'
    embedding, labels, expected = (vectors[prefix + name] for name in ('emb', 'labels', 'L2Triplet_loss'))
    negative = vectors.get(prefix + 'L2Triplet_neg', vectors[prefix + 'neg'])
    triplets = torch.stack([vectors[prefix + 'anchor'], vectors[prefix + 'pos'], negative], dim=1).tolist()
    assert looped(embedding, triplets, eps=1e-6) == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    if WORDS[sampler] in ('random', 'distance'):  # drawn there by argmax, not at random
        return
    ours = triplet_loss(embedding, labels, mining=WORDS[sampler]).item()
    assert ours == pytest.approx(looped(embedding, triplets), rel=1e-9, abs=1e-12)
    assert ours == pytest.approx(expected.item(), abs=2e-6 * embedding.shape[1] ** 0.5)


def test_official_gradients(golden):
    vectors = golden('rkd_triplet_samplers')
    for case in ['plain_B8_D4', 'plain_B32_D64', 'normalised_B32_D4']:
        for sampler in ['AllPairs', 'HardNegative', 'SemiHardNegative']:
            for dtype, rtol in (('f64', 1e-5), ('f32', 1e-4)):
                embedding, labels, grad = (
                    torch.from_numpy(vectors[f'{sampler}_{case}_{dtype}_{name}'])
                    for name in ('emb', 'labels', 'L2Triplet_grad')
                )
                triplet_loss(embedding.requires_grad_(), labels, mining=WORDS[sampler]).backward()
                assert (embedding.grad - grad).norm() <= rtol * grad.norm()


@pytest.mark.parametrize('mining', MININGS)
def test_loops_and_gradcheck(mining):
    for squared in [False, True]:
        embedding, labels = random_case()
        settings = dict(margin=0.3, squared=squared)
        expected = looped(embedding, triplets_of(embedding, labels, mining, 1, 2), **settings)
        result = triplet_loss(embedding, labels, mining=mining, seed=1, step=2, **settings)
        assert result.item() == pytest.approx(expected, rel=1e-12)
        # Random choices follow the embedding, so for them the loss is not continuous.
        if mining in ('all', 'random', 'hard'):
            function = functools.partial(triplet_loss, mining=mining, **settings)
            assert torch.autograd.gradcheck(function, (embedding.requires_grad_(), labels))


@pytest.mark.parametrize('mining', ['all', 'hard', 'semi-hard', 'distance'])
def test_blind_to_rotation_and_shift(mining):
    embedding, labels = random_case()
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    shift = 0 if mining == 'distance' else 3.0  # its probabilities see the directions from the origin
    torch.testing.assert_close(
        triplet_loss(embedding @ rotation + shift, labels, mining=mining),
        triplet_loss(embedding, labels, mining=mining),
    )


def test_far_classes_cost_nothing_and_equal_points_the_margin():
    embedding = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    labels = torch.tensor([0, 0, 1, 1])
    for mining in MININGS:
        assert triplet_loss(embedding, labels, mining=mining) == 0
        assert triplet_loss(0 * embedding, labels, mining=mining).item() == pytest.approx(0.2)


@pytest.mark.parametrize('mining', MININGS)
def test_opposite_points(mining):
    """Distance-weighted mining takes the logarithm of 1 - d^2 / 4, which is 0 at distance 2."""
    embedding = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [-1.0, 0, 0, 0], [-1.0, 0, 0, 0]], requires_grad=True)
    loss = triplet_loss(embedding, torch.tensor([0, 1, 1, 0]), mining=mining)
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad.isfinite().all()


@pytest.mark.parametrize('mining', MININGS)
def test_unlabelled_samples_take_no_part(mining):
    embedding, labels = random_case()
    known = embedding[:8], labels[:8]
    with_others = embedding, torch.cat([labels[:8], torch.full((4,), -1)])
    if mining in ('random', 'distance'):  # the noise of a cell depends on the size of the batch
        triplets = triplets_of(*with_others, mining)
        assert all(max(triplet) < 8 for triplet in triplets)
        return
    torch.testing.assert_close(triplet_loss(*with_others, mining=mining), triplet_loss(*known, mining=mining))


def test_a_sum_beyond_the_range_of_the_type_is_no_reason_to_refuse():
    embedding = torch.tensor([[3e38], [3e38], [2e38], [1e38]])
    assert triplet_loss(embedding, torch.tensor([0, 0, 1, 1]), mining='hard').isfinite()


@pytest.mark.parametrize('mining', MININGS)
def test_compiles_without_a_break(mining):
    embedding, labels = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(triplet_loss, fullgraph=True, backend='eager')
    step = torch.tensor(3)
    torch.testing.assert_close(
        compiled(embedding, labels, mining=mining, step=step), triplet_loss(embedding, labels, mining=mining, step=step)
    )


@pytest.mark.parametrize(('shape', 'num_labels'), [((4, 3), 5), ((4, 3, 2), 4), ((4,), 4)])
def test_shapes_that_do_not_fit(shape, num_labels):
    with pytest.raises(ValueError, match=r'triplet_loss: expected an embedding of shape \(N, D\) and labels'):
        triplet_loss(torch.zeros(shape), torch.zeros(num_labels, dtype=torch.int64))


# --------------------------------------------------------------------------------------------------
# The contrastive loss.

CONTRASTIVE_WORDS = {'AllPairs': 'all', 'HardNegative': 'hard', 'SemiHardNegative': 'semi-hard'}


def looped_contrastive(embedding, triplets, margin=0.2, eps=0.0):
    rows = embedding.tolist()

    def distance(i, j):
        return math.hypot(*(x - y + eps for x, y in zip(rows[i], rows[j], strict=True)))

    pulls = [distance(a, p) ** 2 for a, p, _ in triplets]
    pushes = [max(margin - distance(a, n), 0.0) ** 2 for a, _, n in triplets]
    return math.fsum(pulls + pushes) / (2 * len(triplets))


def contrastive_random_case(num_samples=12):
    embedding = 0.5 * torch.nn.functional.normalize(torch.randn(num_samples, 6, dtype=torch.float64))
    return embedding, torch.arange(num_samples) % 4


@pytest.mark.parametrize('sampler', CONTRASTIVE_WORDS)
def test_contrastive_official_values(golden, sampler):
    """With its shift of 1e-6 per coordinate the loop gives the official value, without it ours."""
    for case in ['plain_B8_D4', 'plain_B32_D64', 'normalised_B32_D4', 'dup_B8_D4']:
        vectors = {name: torch.from_numpy(value) for name, value in golden('rkd_triplet_samplers').items()}
        prefix = f'{sampler}_{case}_f64_'
        embedding, labels, expected = (vectors[prefix + name] for name in ('emb', 'labels', 'ContrastiveLoss_loss'))
        negative = vectors.get(prefix + 'ContrastiveLoss_neg', vectors[prefix + 'neg'])
        triplets = torch.stack([vectors[prefix + 'anchor'], vectors[prefix + 'pos'], negative], dim=1).tolist()
        assert looped_contrastive(embedding, triplets, eps=1e-6) == pytest.approx(expected.item(), rel=1e-9)
        ours = contrastive_loss(embedding, labels, mining=CONTRASTIVE_WORDS[sampler]).item()
        assert ours == pytest.approx(looped_contrastive(embedding, triplets), rel=1e-9)


@pytest.mark.parametrize('mining', MININGS)
def test_contrastive_loops_and_gradcheck(mining):
    embedding, labels = contrastive_random_case()
    settings = dict(margin=0.7, mining=mining, seed=3, step=4)
    if mining == 'all':
        cells = torch.cartesian_prod(*[torch.arange(12)] * 3).tolist()
        triplets = [(a, p, n) for a, p, n in cells if a != p and labels[a] == labels[p] and labels[a] != labels[n]]
    else:
        mined = mine_negatives(embedding, torch.cdist(embedding, embedding), labels, mining, 3, 4)
        triplets = [(a, p, mined.negative_NN[a, p].item()) for a, p in mined.valid_NN.nonzero().tolist()]
    result = contrastive_loss(embedding, labels, **settings)
    assert result.item() == pytest.approx(looped_contrastive(embedding, triplets, margin=0.7), rel=1e-12)
    if mining in ('all', 'random', 'hard'):
        assert torch.autograd.gradcheck(
            lambda e: contrastive_loss(e, labels, **settings), (embedding.requires_grad_(),)
        )


@pytest.mark.parametrize('mining', MININGS)
def test_joined_classes_that_are_apart_cost_nothing(mining):
    embedding = torch.tensor([[0.0], [0.0], [5.0], [5.0]])
    assert contrastive_loss(embedding, torch.tensor([0, 0, 1, 1]), mining=mining) == 0
    assert contrastive_loss(0 * embedding, torch.tensor([0, 0, 1, 1]), mining=mining).item() == pytest.approx(0.02)


# --------------------------------------------------------------------------------------------------
# What both losses promise.


@BOTH
def test_no_triplet_is_a_differentiable_zero(loss):
    for mining in MININGS:
        for labels in ([], [0], [0, 0, 0], [0, 1, 2], [-1, -1, -1]):
            embedding = torch.randn(len(labels), 3, requires_grad=True)
            value = loss(embedding, torch.tensor(labels, dtype=torch.int64), mining=mining)
            value.backward()
            assert value == 0
            assert (embedding.grad == 0).all()


@pytest.mark.parametrize('mining', MININGS)
def test_finite(mining):
    losses = (triplet_loss, functools.partial(triplet_loss, squared=True), contrastive_loss)
    for scale in (0.0, 1e-20, 1.0, 1e8):
        for loss in losses:
            embedding = (scale * torch.randn(8, 200)).requires_grad_()
            value = loss(embedding, torch.arange(8) % 3, mining=mining)
            value.backward()
            assert value.isfinite()
            assert embedding.grad.isfinite().all()


@BOTH
def test_values_that_are_no_numbers_are_refused_on_the_cpu_and_pass_through_elsewhere(monkeypatch, loss):
    for mining in MININGS:
        for value in (math.nan, math.inf, -math.inf):
            embedding, labels = random_case()
            embedding[3, 2] = value
            with pytest.raises(ValueError, match=rf'^{loss.__name__}: expected finite .* in 1 of 72 places'):
                loss(embedding, labels, mining=mining)
            # As on a GPU, where the host may not look.
            with monkeypatch.context() as patch:
                patch.setattr(torch.compiler, 'is_compiling', lambda: True)
                assert loss(embedding, labels, mining=mining).isnan()


@BOTH
def test_half_precision_under_autocast_is_computed_in_float32(loss):
    for dtype in (torch.float16, torch.bfloat16):
        embedding, labels = random_case()
        embedding = embedding.to(dtype)
        with torch.autocast('cpu', torch.bfloat16):
            value = loss(embedding, labels)
        torch.testing.assert_close(value, loss(embedding.float(), labels), rtol=0, atol=0)


@BOTH
def test_bad_settings(loss):
    for setting, value in (('margin', -0.1), ('mining', 'easy')):
        with pytest.raises(ValueError, match=f'^{loss.__name__}: expected {setting} .*{value}'):
            loss(*random_case(), **{setting: value})
