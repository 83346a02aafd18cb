"""sinkhorn_knopp against the official code's outputs, potentials in float64, and the laws of transport."""

import math

import numpy as np
import pytest
import torch

from mmkd_ext.functional import sinkhorn_knopp

F64 = {'rtol': 1e-9, 'atol': 1e-12}
F32 = {'rtol': 1e-5, 'atol': 1e-6}
CASES = [f'B{b}_K{k}_{d}' for b in (8, 64, 256) for k in (5, 20) for d in ('f64', 'f32')]


def scaled_potentials(logits, epsilon=0.05, num_iters=3):
    """The iterations on potentials f, g of log Q = L / epsilon + f + g, with Python's exact sums, row by row."""

    def log_sum_exp(values):
        top = max(values)
        return top + math.log(math.fsum(math.exp(value - top) for value in values))

    scores = [[value / epsilon for value in row] for row in logits.double().tolist()]
    f, g = [0.0] * len(scores), [0.0] * len(scores[0])
    for _ in range(num_iters):
        g = [-log_sum_exp([row[k] + f[b] for b, row in enumerate(scores)]) for k in range(len(g))]
        f = [-log_sum_exp([value + g[k] for k, value in enumerate(row)]) for row in scores]
    return torch.tensor(
        [[math.exp(value + f[b] + g[k]) for k, value in enumerate(row)] for b, row in enumerate(scores)],
        dtype=torch.float64,
    )


@pytest.mark.parametrize('case', [*CASES, 'B1_K5_f64', 'B1_K5_f32', 'unnormalised_f64'])
def test_official(golden, case):
    vectors = golden('crkd_sinkhorn')
    result = sinkhorn_knopp(torch.from_numpy(vectors[f'{case}_logits']))
    torch.testing.assert_close(result, torch.from_numpy(vectors[f'{case}_Q']), **(F64 if 'f64' in case else F32))


@pytest.mark.parametrize('num_iters', [0, 1, 3, 10, 100])
def test_official_iterations(golden, num_iters):
    vectors = golden('crkd_sinkhorn')
    result = sinkhorn_knopp(torch.from_numpy(vectors[f'iters{num_iters}_logits']), num_iters=num_iters)
    torch.testing.assert_close(result, torch.from_numpy(vectors[f'iters{num_iters}_Q']), **F64)


def test_official_epsilon(golden):
    vectors = golden('crkd_sinkhorn')
    result = sinkhorn_knopp(torch.from_numpy(vectors['eps0.2_logits']), epsilon=0.2)
    torch.testing.assert_close(result, torch.from_numpy(vectors['eps0.2_Q']), **F64)


def test_right_where_official_float32_overflows(golden):
    vectors = golden('crkd_sinkhorn')
    assert np.isnan(vectors['unnormalised_f32_Q']).all()
    logits = torch.from_numpy(vectors['unnormalised_f32_logits'])
    torch.testing.assert_close(sinkhorn_knopp(logits).double(), scaled_potentials(logits), **F32)


def test_worked_example():
    logits = torch.tensor([[0.10, 0.05], [0.12, 0.02], [0.11, 0.09]], dtype=torch.float64)
    expected = torch.tensor(
        [[0.4688090788, 0.5311909212], [0.7058004141, 0.2941995859], [0.3263091893, 0.6736908107]], dtype=torch.float64
    )
    torch.testing.assert_close(sinkhorn_knopp(logits), expected, rtol=0, atol=5e-11)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('scale', [1.0, 8.0, 1e4])
@pytest.mark.parametrize('offsets', [False, True], ids=['plain', 'offsets'])
def test_right_for_extreme_logits(dtype, scale, offsets):
    logits = torch.rand(24, 6, dtype=torch.float64) * 2 - 1
    if offsets:  # whole samples and whole prototypes far from the others, small differences within
        logits += scale * torch.randn(24, 1) + scale * torch.randn(1, 6)
    else:
        logits *= scale
    logits = logits.to(dtype)
    result = sinkhorn_knopp(logits)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {'rtol': 1e-8, 'atol': 1e-10} if dtype == torch.float64 else F32
    torch.testing.assert_close(result.double(), scaled_potentials(logits), **tolerance)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('epsilon', [0.05, 2.0])
def test_finite_for_the_largest_logits(dtype, epsilon):
    logits = torch.finfo(dtype).max * (2 * torch.rand(24, 6, dtype=dtype) - 1)
    logits[0] = torch.finfo(dtype).min
    result = sinkhorn_knopp(logits, epsilon=epsilon)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(24, dtype=dtype))


@pytest.mark.parametrize('num_iters', [1, 3, 300])
@pytest.mark.parametrize('span', [59.0, 61.0], ids=['products', 'logarithms'])
def test_both_ways_meet_at_the_border(span, num_iters):
    """Few prototypes for many samples: a common factor of the scalings would grow without bound over 300 iterations."""
    logits = torch.rand(40, 3)
    logits = (logits - logits.min()) / (logits.max() - logits.min()) * span * 0.05 + 7
    result = sinkhorn_knopp(logits, num_iters=num_iters)
    torch.testing.assert_close(result.double(), scaled_potentials(logits, num_iters=num_iters), rtol=1e-4, atol=1e-5)


def test_strides_do_not_matter():
    logits = torch.rand(2, 5, 12, 4, dtype=torch.float64).transpose(1, 3)[..., 1:]
    torch.testing.assert_close(sinkhorn_knopp(logits), sinkhorn_knopp(logits.contiguous()), **F64)


def test_revives_what_underflowed():
    """99 samples of 100 prefer prototype 0 by far more than exp can hold; transport still fills prototype 1 in time."""
    logits = torch.tensor([[5.0, 0.0]] * 99 + [[0.0, 5.0]])
    assert math.exp(-5 / 0.05) < torch.finfo(torch.float32).tiny
    result = sinkhorn_knopp(logits, num_iters=100)
    torch.testing.assert_close(result.double(), scaled_potentials(logits, num_iters=100), rtol=1e-4, atol=1e-5)
    assert result[:, 1].sum() > 40


def test_leading_dimensions_are_independent():
    logits = torch.randn(2, 4, 12, 5, dtype=torch.float64)
    batched = sinkhorn_knopp(logits)
    for v in range(2):
        for h in range(4):
            torch.testing.assert_close(batched[v, h], sinkhorn_knopp(logits[v, h]), **F64)


def test_permutation_equivariant_and_blind_to_a_constant():
    logits = torch.rand(16, 5, dtype=torch.float64)
    rows, columns = torch.randperm(16), torch.randperm(5)
    result = sinkhorn_knopp(logits)
    torch.testing.assert_close(sinkhorn_knopp(logits[rows][:, columns]), result[rows][:, columns], **F64)
    torch.testing.assert_close(sinkhorn_knopp(logits + 3.0), result, **F64)
    torch.testing.assert_close(sinkhorn_knopp(logits + torch.randn(5, dtype=torch.float64)), result, **F64)


def test_marginals_become_uniform():
    assignments = sinkhorn_knopp(torch.rand(20, 4, dtype=torch.float64), num_iters=2000)
    torch.testing.assert_close(assignments.sum(-1), torch.ones(20, dtype=torch.float64), **F64)
    torch.testing.assert_close(assignments.sum(-2), torch.full((4,), 5.0, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize('num_iters', [0, 3])
@pytest.mark.parametrize('shape', [(0, 5), (2, 4, 0, 5)])
def test_no_sample(shape, num_iters):
    assert sinkhorn_knopp(torch.empty(shape), num_iters=num_iters).shape == shape


def test_one_sample_spreads_evenly():
    torch.testing.assert_close(sinkhorn_knopp(torch.tensor([[1.0, -1.0, 0.5, 9e3]])), torch.full((1, 4), 0.25))


def test_no_gradient():
    assert not sinkhorn_knopp(torch.randn(4, 3, requires_grad=True)).requires_grad


def test_input_is_left_alone():
    logits = torch.randn(4, 3, dtype=torch.float64)
    before = logits.clone()
    sinkhorn_knopp(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'epsilon': 0.0}, r'sinkhorn_knopp: expected epsilon > 0 but got 0.0'),
        ({'num_iters': -1}, r'sinkhorn_knopp: expected num_iters >= 0 but got -1'),
    ],
)
def test_bad_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn_knopp(torch.zeros(3, 2), **settings)


def test_bad_shape():
    with pytest.raises(ValueError, match=r'expected logits of shape \(\.\.\., B, K\) but got \(3,\)'):
        sinkhorn_knopp(torch.zeros(3))
