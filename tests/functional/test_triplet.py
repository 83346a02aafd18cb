"""triplet_loss against loops, the official code's values, its invariances and degenerate batches."""

import math

import pytest
import torch

from mmkd_ext.functional import triplet_loss
from mmkd_ext.functional.metric_learning import mine_negatives

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


@pytest.mark.parametrize('case', ['plain_B8_D4', 'plain_B32_D64', 'normalised_B32_D4'])
@pytest.mark.parametrize('sampler', ['AllPairs', 'HardNegative', 'SemiHardNegative'])
def test_official_gradients(golden, sampler, case):
    vectors = golden('rkd_triplet_samplers')
    for dtype, rtol in (('f64', 1e-5), ('f32', 1e-4)):
        embedding, labels, grad = (
            torch.from_numpy(vectors[f'{sampler}_{case}_{dtype}_{name}'])
            for name in ('emb', 'labels', 'L2Triplet_grad')
        )
        triplet_loss(embedding.requires_grad_(), labels, mining=WORDS[sampler]).backward()
        assert (embedding.grad - grad).norm() <= rtol * grad.norm()


@pytest.mark.parametrize('squared', [False, True])
@pytest.mark.parametrize('mining', MININGS)
def test_loops_and_gradcheck(mining, squared):
    embedding, labels = random_case()
    settings = dict(margin=0.3, squared=squared)
    expected = looped(embedding, triplets_of(embedding, labels, mining, 1, 2), **settings)
    result = triplet_loss(embedding, labels, mining=mining, seed=1, step=2, **settings)
    assert result.item() == pytest.approx(expected, rel=1e-12)
    # Random choices follow the embedding, so for them the loss is not continuous.
    if mining in ('all', 'random', 'hard'):
        assert torch.autograd.gradcheck(
            lambda e: triplet_loss(e, labels, mining=mining, **settings), (embedding.requires_grad_(),)
        )


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
@pytest.mark.parametrize('scale', [0.0, 1e-20, 1.0, 1e8])
def test_finite(mining, scale):
    embedding = (scale * torch.randn(8, 200)).requires_grad_()
    for squared in (False, True):
        loss = triplet_loss(embedding, torch.arange(8) % 3, mining=mining, squared=squared)
        loss.backward()
        assert loss.isfinite()
        assert embedding.grad.isfinite().all()


@pytest.mark.parametrize('mining', MININGS)
def test_opposite_points(mining):
    """Distance-weighted mining takes the logarithm of 1 - d^2 / 4, which is 0 at distance 2."""
    embedding = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [-1.0, 0, 0, 0], [-1.0, 0, 0, 0]], requires_grad=True)
    loss = triplet_loss(embedding, torch.tensor([0, 1, 1, 0]), mining=mining)
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad.isfinite().all()


@pytest.mark.parametrize('labels', [[], [0], [0, 0, 0], [0, 1, 2], [-1, -1, -1]], ids=str)
@pytest.mark.parametrize('mining', MININGS)
def test_no_triplet_is_a_differentiable_zero(mining, labels):
    embedding = torch.randn(len(labels), 3, requires_grad=True)
    loss = triplet_loss(embedding, torch.tensor(labels, dtype=torch.int64), mining=mining)
    loss.backward()
    assert loss == 0
    assert (embedding.grad == 0).all()


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


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('mining', MININGS)
def test_values_that_are_no_numbers_are_refused_on_the_cpu_and_pass_through_elsewhere(monkeypatch, mining, value):
    embedding, labels = random_case()
    embedding[3, 2] = value
    with pytest.raises(ValueError, match=r'triplet_loss: expected finite numbers in embedding .* in 1 of 72 places'):
        triplet_loss(embedding, labels, mining=mining)
    # As on a GPU, where the host may not look.
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert triplet_loss(embedding, labels, mining=mining).isnan()


def test_a_sum_beyond_the_range_of_the_type_is_no_reason_to_refuse():
    embedding = torch.tensor([[3e38], [3e38], [2e38], [1e38]])
    assert triplet_loss(embedding, torch.tensor([0, 0, 1, 1]), mining='hard').isfinite()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype):
    embedding, labels = random_case()
    embedding = embedding.to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        loss = triplet_loss(embedding, labels)
    torch.testing.assert_close(loss, triplet_loss(embedding.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize('mining', MININGS)
def test_compiles_without_a_break(mining):
    embedding, labels = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(triplet_loss, fullgraph=True, backend='eager')
    step = torch.tensor(3)
    torch.testing.assert_close(
        compiled(embedding, labels, mining=mining, step=step), triplet_loss(embedding, labels, mining=mining, step=step)
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(margin=-0.1), 'triplet_loss: expected margin >= 0 but got -0.1'),
        (dict(mining='easy'), r"triplet_loss: expected mining in \('all', 'random', 'hard', 'semi-hard', 'distance'\)"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        triplet_loss(*random_case(), **settings)


@pytest.mark.parametrize(('shape', 'num_labels'), [((4, 3), 5), ((4, 3, 2), 4), ((4,), 4)])
def test_shapes_that_do_not_fit(shape, num_labels):
    with pytest.raises(ValueError, match=r'triplet_loss: expected an embedding of shape \(N, D\) and labels'):
        triplet_loss(torch.zeros(shape), torch.zeros(num_labels, dtype=torch.int64))
