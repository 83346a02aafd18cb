import itertools
import math

import pytest
import torch

from mmkd_ext.scores.similarity import collapse, linear_cka


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def kornblith(x, y):
    """The form in features: ||Y^T X||^2 / (||X^T X|| ||Y^T Y||)."""
    x, y = x - x.mean(0), y - y.mean(0)
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def hsic_by_tuples(k, l_):
    """Unbiased HSIC as a U-statistic: a mean over ordered quadruples of different samples."""
    terms = [
        k[a, b] * l_[a, b] + k[a, b] * l_[c, d] - 2 * k[a, b] * l_[a, c]
        for a, b, c, d in itertools.permutations(range(len(k)), 4)
    ]
    return sum(terms) / len(terms)


def test_cka_is_the_formula_in_features():
    x, y = randn(7, 3), randn(7, 5)
    torch.testing.assert_close(linear_cka(x, y), kornblith(x, y), rtol=1e-12, atol=0)


def test_debiased_cka_is_the_u_statistic():
    x, y = randn(6, 3), randn(6, 5)
    k, l_ = x @ x.T, y @ y.T
    expected = hsic_by_tuples(k, l_) / (hsic_by_tuples(k, k) * hsic_by_tuples(l_, l_)).sqrt()
    torch.testing.assert_close(linear_cka(x, y, debiased=True), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize('debiased', [False, True])
def test_cka_is_one_up_to_rotation_shift_and_scale(debiased):
    x = randn(9, 4)
    rotation = torch.linalg.qr(randn(6, 6))[0][:4]
    value = linear_cka(x, 3 * x @ rotation + 7, debiased=debiased)
    torch.testing.assert_close(value, torch.ones_like(value), rtol=1e-12, atol=0)


@pytest.mark.parametrize('debiased', [False, True])
def test_cka_is_symmetric_and_ignores_the_order_of_samples(debiased):
    x, y, order = randn(8, 3), randn(8, 5), torch.randperm(8)
    value = linear_cka(x, y, debiased=debiased)
    torch.testing.assert_close(linear_cka(y, x, debiased=debiased), value)
    torch.testing.assert_close(linear_cka(x[order], y[order], debiased=debiased), value)


def test_unrelated_wide_features_look_alike_only_to_the_biased_estimate():
    pairs = [(torch.randn(16, 2000), torch.randn(16, 2000)) for _ in range(20)]
    assert min(linear_cka(*pair) for pair in pairs) > 0.9
    assert abs(sum(linear_cka(*pair, debiased=True) for pair in pairs) / 20) < 0.05


@pytest.mark.parametrize('debiased', [False, True])
def test_cka_of_equal_rows_is_zero(debiased):
    rows = torch.full((5, 3), 0.1)
    assert linear_cka(rows, torch.randn(5, 2), debiased=debiased) == 0
    assert linear_cka(rows, rows, debiased=debiased) == 0


def test_cka_refuses_what_does_not_pair_up_or_is_too_small():
    with pytest.raises(ValueError, match='linear_cka: expected student and teacher'):
        linear_cka(torch.ones(4, 2), torch.ones(5, 2))
    with pytest.raises(ValueError, match='at least 4 samples for the debiased estimate but got 3'):
        linear_cka(torch.ones(3, 2), torch.ones(3, 2), debiased=True)


def test_collapse_is_one_minus_relative_squared_distance():
    x = randn(6, 4) + 1
    distances = [(a - b).square().sum() for a in x for b in x]
    expected = 1 - sum(distances) / 36 / (2 * x.square().sum() / 6)
    torch.testing.assert_close(collapse(x), expected, rtol=1e-12, atol=0)


def test_collapse_of_known_cases():
    centred = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert collapse(centred) == 0
    assert collapse(torch.ones(3, 4)) == pytest.approx(1)
    assert collapse(torch.zeros(3, 4)) == 1
    assert collapse(torch.randn(1, 4)) == pytest.approx(1)
    angle = math.radians(60)  # two unit vectors: mean of squared length cos^2 of the half angle
    assert collapse(torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])) == pytest.approx(0.75)


def test_collapse_ignores_rotation_and_scale():
    x = randn(6, 4) + 1
    rotation = torch.linalg.qr(randn(4, 4))[0]
    torch.testing.assert_close(collapse(100 * x @ rotation), collapse(x))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])
def test_finite_in_any_precision_and_without_gradient(dtype, scale):
    x = (torch.randn(8, 16) * scale).to(dtype).requires_grad_()
    for value in (collapse(x), linear_cka(x, x + 1), linear_cka(x, x, debiased=True)):
        assert value.isfinite()
        assert value.dtype == torch.float32
        assert not value.requires_grad
