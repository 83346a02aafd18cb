"""contrastive_loss against loops, the official code's values and degenerate batches."""

import math

import pytest
import torch

from mmkd_ext.functional import contrastive_loss
from mmkd_ext.functional.metric_learning import mine_negatives

MININGS = ['all', 'random', 'hard', 'semi-hard', 'distance']
WORDS = {'AllPairs': 'all', 'HardNegative': 'hard', 'SemiHardNegative': 'semi-hard'}


def looped(embedding, triplets, margin=0.2, eps=0.0):
    rows = embedding.tolist()

    def distance(i, j):
        return math.hypot(*(x - y + eps for x, y in zip(rows[i], rows[j], strict=True)))

    pulls = [distance(a, p) ** 2 for a, p, _ in triplets]
    pushes = [max(margin - distance(a, n), 0.0) ** 2 for a, _, n in triplets]
    return math.fsum(pulls + pushes) / (2 * len(triplets))


def random_case(num_samples=12):
    embedding = 0.5 * torch.nn.functional.normalize(torch.randn(num_samples, 6, dtype=torch.float64))
    return embedding, torch.arange(num_samples) % 4


@pytest.mark.parametrize('case', ['plain_B8_D4', 'plain_B32_D64', 'normalised_B32_D4', 'dup_B8_D4'])
@pytest.mark.parametrize('sampler', WORDS)
def test_official_values(golden, sampler, case):
    """With its shift of 1e-6 per coordinate the loop gives the official value, without it ours."""
    vectors = {name: torch.from_numpy(value) for name, value in golden('rkd_triplet_samplers').items()}
    prefix = f'{sampler}_{case}_f64_'
    embedding, labels, expected = (vectors[prefix + name] for name in ('emb', 'labels', 'ContrastiveLoss_loss'))
    negative = vectors.get(prefix + 'ContrastiveLoss_neg', vectors[prefix + 'neg'])
    triplets = torch.stack([vectors[prefix + 'anchor'], vectors[prefix + 'pos'], negative], dim=1).tolist()
    assert looped(embedding, triplets, eps=1e-6) == pytest.approx(expected.item(), rel=1e-9)
    ours = contrastive_loss(embedding, labels, mining=WORDS[sampler]).item()
    assert ours == pytest.approx(looped(embedding, triplets), rel=1e-9)


@pytest.mark.parametrize('mining', MININGS)
def test_loops_and_gradcheck(mining):
    embedding, labels = random_case()
    settings = dict(margin=0.7, mining=mining, seed=3, step=4)
    if mining == 'all':
        cells = torch.cartesian_prod(*[torch.arange(12)] * 3).tolist()
        triplets = [(a, p, n) for a, p, n in cells if a != p and labels[a] == labels[p] and labels[a] != labels[n]]
    else:
        mined = mine_negatives(embedding, torch.cdist(embedding, embedding), labels, mining, 3, 4)
        triplets = [(a, p, mined.negative_NN[a, p].item()) for a, p in mined.valid_NN.nonzero().tolist()]
    result = contrastive_loss(embedding, labels, **settings)
    assert result.item() == pytest.approx(looped(embedding, triplets, margin=0.7), rel=1e-12)
    if mining in ('all', 'random', 'hard'):
        assert torch.autograd.gradcheck(
            lambda e: contrastive_loss(e, labels, **settings), (embedding.requires_grad_(),)
        )


@pytest.mark.parametrize('mining', MININGS)
def test_joined_classes_that_are_apart_cost_nothing(mining):
    embedding = torch.tensor([[0.0], [0.0], [5.0], [5.0]])
    assert contrastive_loss(embedding, torch.tensor([0, 0, 1, 1]), mining=mining) == 0
    assert contrastive_loss(0 * embedding, torch.tensor([0, 0, 1, 1]), mining=mining).item() == pytest.approx(0.02)


@pytest.mark.parametrize('labels', [[], [0], [0, 0, 0], [0, 1, 2], [-1, -1, -1]], ids=str)
@pytest.mark.parametrize('mining', MININGS)
def test_no_triplet_is_a_differentiable_zero(mining, labels):
    embedding = torch.randn(len(labels), 3, requires_grad=True)
    loss = contrastive_loss(embedding, torch.tensor(labels, dtype=torch.int64), mining=mining)
    loss.backward()
    assert loss == 0
    assert (embedding.grad == 0).all()


@pytest.mark.parametrize('scale', [0.0, 1e-20, 1e8])
@pytest.mark.parametrize('mining', MININGS)
def test_finite(mining, scale):
    embedding = (scale * torch.randn(8, 200)).requires_grad_()
    loss = contrastive_loss(embedding, torch.arange(8) % 3, mining=mining)
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad.isfinite().all()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('mining', MININGS)
def test_values_that_are_no_numbers_are_refused_on_the_cpu_and_pass_through_elsewhere(monkeypatch, mining, value):
    embedding, labels = random_case()
    embedding[3, 2] = value
    with pytest.raises(
        ValueError, match=r'contrastive_loss: expected finite numbers in embedding .* in 1 of 72 places'
    ):
        contrastive_loss(embedding, labels, mining=mining)
    # As on a GPU, where the host may not look.
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert contrastive_loss(embedding, labels, mining=mining).isnan()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype):
    embedding, labels = random_case()
    embedding = embedding.to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        loss = contrastive_loss(embedding, labels)
    torch.testing.assert_close(loss, contrastive_loss(embedding.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(margin=-0.1), 'contrastive_loss: expected margin >= 0 but got -0.1'),
        (dict(mining='easy'), 'contrastive_loss: expected mining in'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        contrastive_loss(*random_case(), **settings)
