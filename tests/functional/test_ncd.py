"""swapped_prediction against the official code's outputs, loops in float64, and its invariances."""

import pytest
import torch

from mmkd_ext.functional import swapped_prediction

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


@pytest.mark.parametrize('dtype', ['f64', 'f32'])
@pytest.mark.parametrize('case', ['2large_2small', '2large', '1head'])
def test_official(golden, case, dtype):
    vectors = golden('crkd_swapped_prediction')
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
    torch.testing.assert_close(logits.grad, torch.from_numpy(vectors[f'{case}_{dtype}_grad_of_mean']), **tolerance)


@pytest.mark.parametrize(('num_views', 'num_large'), [(2, 1), (2, 2), (4, 2), (5, 3)])
def test_loops(num_views, num_large):
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


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_finite_and_float32_for_extreme_logits_under_autocast(dtype):
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
