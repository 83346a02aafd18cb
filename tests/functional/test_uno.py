"""swapped_prediction and sinkhorn_knopp against the official code's outputs, loops in float64, laws and invariances."""

import math

import numpy as np
import pytest
import torch

from mmkd_ext.functional import sinkhorn_knopp, swapped_prediction

F64 = {'rtol': 1e-9, 'atol': 1e-12}
F32 = {'rtol': 1e-5, 'atol': 1e-6}


def looped(logits, targets, num_large, temperature):
    """The formula as it is read: every large view v gives targets to every other view o."""
    num_views, num_heads, batch_size, _ = logits.shape
    losses = []
    for h in range(num_heads):
        terms = [
            -(targets[v, h, b] * torch.log_softmax(logits[o, h, b] / temperature, -1)).sum()
            for v in range(num_large)
            for o in range(num_views)
            if o != v
            for b in range(batch_size)
        ]
        losses.append(sum(terms) / len(terms))
    return torch.stack(losses)


def random_case(num_views=4, num_heads=3, batch_size=5, num_classes=6):
    shape = (num_views, num_heads, batch_size, num_classes)
    return torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64).softmax(-1)


def test_official(golden):
    vectors = golden('crkd_swapped_prediction')
    for dtype in ['f64', 'f32']:
        for case in ['2large_2small', '2large', '1head']:
            logits = torch.from_numpy(vectors[f'{case}_{dtype}_logits']).requires_grad_()
            loss = swapped_prediction(
                logits,
                torch.from_numpy(vectors[f'{case}_{dtype}_targets']),
                num_large=int(vectors[f'{case}_num_large_crops']),
                temperature=float(vectors[f'{case}_temperature']),
            )
            loss.mean().backward()
            tolerance = F64 if dtype == 'f64' else F32
            torch.testing.assert_close(loss, torch.from_numpy(vectors[f'{case}_{dtype}_loss_per_head']), **tolerance)
            torch.testing.assert_close(
                logits.grad, torch.from_numpy(vectors[f'{case}_{dtype}_grad_of_mean']), **tolerance
            )


def test_loops():
    for num_views, num_large in [(2, 1), (2, 2), (4, 2), (5, 3)]:
        logits, targets = random_case(num_views)
        result = swapped_prediction(logits, targets, num_large=num_large, temperature=0.3)
        torch.testing.assert_close(result, looped(logits, targets, num_large, 0.3), **F64)


def test_gradcheck():
    logits, targets = random_case(3, 2, 2, 3)
    torch.autograd.gradcheck(
        lambda x: swapped_prediction(x, targets, num_large=2, temperature=0.5), logits.requires_grad_()
    )


def test_targets_of_small_views_are_not_read():
    logits, targets = random_case()
    spoiled = targets.clone()
    spoiled[2:] = float('nan')
    torch.testing.assert_close(
        swapped_prediction(logits, spoiled, num_large=2), swapped_prediction(logits, targets, num_large=2), **F64
    )


def test_invariances():
    logits, targets = random_case()
    result = swapped_prediction(logits, targets, num_large=2)
    rows, classes, heads = torch.randperm(5), torch.randperm(6), torch.randperm(3)
    permuted = swapped_prediction(logits[:, :, rows][..., classes], targets[:, :, rows][..., classes], num_large=2)
    torch.testing.assert_close(permuted, result, **F64)
    torch.testing.assert_close(swapped_prediction(logits[:, heads], targets[:, heads], num_large=2), result[heads])
    shifted = logits + torch.randn(4, 3, 5, 1, dtype=torch.float64)
    torch.testing.assert_close(swapped_prediction(shifted, targets, num_large=2), result, **F64)


def test_perfect_prediction_is_zero():
    targets = torch.nn.functional.one_hot(torch.tensor([0, 2, 1]), 3).double().expand(2, 1, 3, 3)
    torch.testing.assert_close(
        swapped_prediction(targets * 100, targets, num_large=2), torch.zeros(1, dtype=torch.float64)
    )


def test_no_gradient_into_targets():
    logits, targets = random_case()
    targets.requires_grad_()
    swapped_prediction(logits.requires_grad_(), targets, num_large=2).sum().backward()
    assert targets.grad is None


def test_finite_and_float32_for_extreme_logits_under_autocast():
    for dtype in [torch.float16, torch.bfloat16, torch.float32]:
        logits, targets = random_case()
        logits = (logits * 1e4).to(dtype).requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            loss = swapped_prediction(logits, targets.to(dtype), num_large=2)
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert logits.grad.dtype == dtype
        assert logits.grad.isfinite().all()
        expected = looped(logits.detach().double(), targets.to(dtype).double(), 2, 0.1)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


def test_empty_batch_is_a_differentiable_zero():
    logits = torch.zeros(2, 3, 0, 4, requires_grad=True)
    loss = swapped_prediction(logits, torch.zeros(2, 3, 0, 4), num_large=2)
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(3))
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize(
    ('shape', 'settings', 'message'),
    [
        ((1, 2, 3, 4), {'num_large': 1}, r'expected V >= 2 views and 1 <= num_large <= V but got V=1, num_large=1'),
        ((2, 2, 3, 4), {'num_large': 3}, r'num_large <= V but got V=2, num_large=3'),
        ((2, 2, 3, 4), {'num_large': 0}, r'1 <= num_large'),
        ((2, 2, 3, 4), {'num_large': 2, 'temperature': -1.0}, r'expected temperature > 0 but got -1.0'),
        ((2, 3, 4), {'num_large': 2}, r'expected logits of shape \(V, H, B, C\) but got \(2, 3, 4\)'),
    ],
)
def test_bad_input(shape, settings, message):
    with pytest.raises(ValueError, match=f'swapped_prediction: .*{message}'):
        swapped_prediction(torch.zeros(shape), torch.zeros(shape), **settings)


def test_targets_of_another_shape():
    with pytest.raises(ValueError, match=r'shape of logits \(4, 1, 3, 2\) but got \(2, 1, 3, 2\); give small views'):
        swapped_prediction(torch.zeros(4, 1, 3, 2), torch.zeros(2, 1, 3, 2), num_large=2)


# --------------------------------------------------------------------------------------------------
# Sinkhorn-Knopp.

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


def test_sinkhorn_official(golden):
    vectors = golden('crkd_sinkhorn')
    for case in [*CASES, 'B1_K5_f64', 'B1_K5_f32', 'unnormalised_f64']:
        result = sinkhorn_knopp(torch.from_numpy(vectors[f'{case}_logits']))
        torch.testing.assert_close(result, torch.from_numpy(vectors[f'{case}_Q']), **(F64 if 'f64' in case else F32))


def test_official_iterations(golden):
    vectors = golden('crkd_sinkhorn')
    for num_iters in [0, 1, 3, 10, 100]:
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


def test_right_for_extreme_logits():
    for dtype in [torch.float16, torch.bfloat16, torch.float32, torch.float64]:
        for scale in [1.0, 8.0, 1e4]:
            for offsets in [False, True]:
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


def test_finite_for_the_largest_logits():
    for dtype in [torch.float32, torch.float64]:
        for epsilon in [0.05, 2.0]:
            logits = torch.finfo(dtype).max * (2 * torch.rand(24, 6, dtype=dtype) - 1)
            logits[0] = torch.finfo(dtype).min
            result = sinkhorn_knopp(logits, epsilon=epsilon)
            torch.testing.assert_close(result.sum(dim=1), torch.ones(24, dtype=dtype))


def test_both_ways_meet_at_the_border():
    """Few prototypes for many samples: a common factor of the scalings would grow without bound over 300 iterations."""
    for num_iters in [1, 3, 300]:
        for span in [59.0, 61.0]:
            logits = torch.rand(40, 3)
            logits = (logits - logits.min()) / (logits.max() - logits.min()) * span * 0.05 + 7
            result = sinkhorn_knopp(logits, num_iters=num_iters)
            torch.testing.assert_close(
                result.double(), scaled_potentials(logits, num_iters=num_iters), rtol=1e-4, atol=1e-5
            )


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


def test_no_sample():
    for num_iters in [0, 3]:
        for shape in [(0, 5), (2, 4, 0, 5)]:
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
