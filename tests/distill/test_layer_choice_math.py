"""Weights against the minimum that defines them, and what bounds them."""

import math

import pytest
import torch

from mmkd_ext.distill.layer_choice import pair_factors, pair_weights

FIRST = torch.tensor([0.5, 2.0, 1e-3, 40.0], dtype=torch.float64)
MEAN = FIRST * torch.tensor([0.2, 0.9, 0.5, 1.1], dtype=torch.float64)


@pytest.mark.parametrize('temperature', [0.1, 0.5, 3.0])
def test_no_other_weights_on_the_simplex_are_better(temperature):
    def objective(w):
        return (w * MEAN / FIRST).sum(-1) + temperature * torch.xlogy(w, w).sum(-1)

    best = pair_weights(FIRST, MEAN, temperature=temperature)
    others = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64)).sample((10_000,))
    near = best + 1e-3 * (others - best)
    assert (objective(best) <= objective(others)).all()
    assert (objective(best) <= objective(near)).all()


def test_written_out():
    weights = pair_weights(torch.tensor([1.0, 4.0]), torch.tensor([0.5, 4.0]), temperature=0.5)
    share = math.exp(-1) / (math.exp(-1) + math.exp(-2))
    torch.testing.assert_close(weights, torch.tensor([share, 1 - share]))


def test_at_first_all_are_equal_however_large_they_are():
    torch.testing.assert_close(pair_weights(FIRST, FIRST), torch.full((4,), 0.25, dtype=torch.float64))


def test_a_loss_that_is_small_by_nature_has_no_advantage():
    scale = torch.tensor([1e-6, 1.0, 1e5, 7.0], dtype=torch.float64)
    torch.testing.assert_close(pair_weights(scale * FIRST, scale * MEAN), pair_weights(FIRST, MEAN))


def test_no_pair_is_forgotten():
    left = torch.tensor([0.0, 1.0])
    weights = pair_weights(torch.ones(2), left, temperature=0.25)
    torch.testing.assert_close(weights[0] / weights[1], torch.tensor(math.exp(4)))


def test_gradcheck():
    leaf = MEAN.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda mean: pair_weights(FIRST, mean), (leaf,))


@pytest.mark.parametrize('first', [[0.0, 0.0], [0.0, 1.0], [1e-38, 1.0], [1e30, 1e-30]])
@pytest.mark.parametrize('mean', [[0.0, 0.0], [0.0, 1.0], [1e30, 1e30]])
def test_degenerate_losses(first, mean):
    weights, factors = pair_weights(torch.tensor(first), torch.tensor(mean)), pair_factors(torch.tensor(mean))
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert factors.isfinite().all()
    assert (factors <= 100.001).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_losses(dtype):
    assert pair_weights(FIRST.to(dtype), MEAN.to(dtype)).dtype == torch.float32
    assert pair_factors(MEAN.to(dtype)).dtype == torch.float32


def test_factors_bring_losses_to_their_mean():
    losses = torch.tensor([0.5, 2.0, 3.5])
    torch.testing.assert_close(pair_factors(losses) * losses, torch.full((3,), 2.0))


def test_what_is_solved_is_not_blown_up():
    torch.testing.assert_close(pair_factors(torch.tensor([1e-12, 2.0])), torch.tensor([100.0, 0.5]))


def test_bad_temperature():
    with pytest.raises(ValueError, match='pair_weights: expected temperature > 0 but got 0'):
        pair_weights(FIRST, MEAN, temperature=0)
