"""Hashed noise: uniform, independent of its neighbours, and a function of seed, step and place alone."""

import pytest
import torch
from scipy import stats

from mmkd_ext.ops.random import mix_bits, uniform_noise


def splitmix(state):
    """The published algorithm, in Python's integers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


@pytest.mark.parametrize('number', [0, 1, -1, 12345, 2**62 + 7, -(2**63)])
def test_bits_are_those_of_splitmix(number):
    assert mix_bits(torch.tensor(number)).item() % 2**64 == splitmix(number % 2**64)


def noise(seed, step, shape=(200, 200)):
    return uniform_noise(shape, seed, torch.tensor(step))


def test_uniform():
    for seed, step in [(0, 0), (0, 1), (1, 0), (7, 10**9)]:
        numbers = noise(seed, step).flatten().double()
        assert numbers.min() >= 0
        assert numbers.max() <= 1 - 2**-23
        assert stats.kstest(numbers.numpy(), 'uniform').pvalue > 1e-4


def test_neighbours_are_independent():
    numbers = noise(3, 5).double()
    others = [numbers.roll(1, 0), numbers.roll(1, 1), noise(3, 6).double(), noise(4, 5).double(), numbers.T]
    for other in others:
        correlation = torch.corrcoef(torch.stack([numbers.flatten(), other.flatten()]))[0, 1]
        assert correlation.abs() < 5 / numbers.numel() ** 0.5


def test_a_function_of_seed_step_and_place():
    assert torch.equal(noise(1, 2), noise(1, 2))
    before = torch.get_rng_state()
    noise(1, 2)
    assert torch.equal(torch.get_rng_state(), before)
    # Swapping seed and step, or shifting both, is another stream.
    streams = [noise(seed, step, (64,)) for seed, step in [(1, 2), (2, 1), (2, 3), (0, 3), (3, 0)]]
    assert len({tuple(stream.tolist()) for stream in streams}) == len(streams)
