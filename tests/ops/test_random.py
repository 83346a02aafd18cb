"""Numbers from counters alone: SplitMix64 in exact integers, uniform, independent of their neighbours."""

import numpy as np
import pytest
import torch
from scipy import stats

from mmkd_ext.ops.random import counter_keys, counter_uniform, mix_bits, seeded_generator, uniform_noise


def splitmix64(state, count):
    """The generator as the paper states it, in Python's integers of any size."""
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        bits = state
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        outputs.append(bits ^ (bits >> 31))
    return outputs


def test_bits_are_those_of_splitmix():
    for number in (0, 1, -1, 12345, 2**62 + 7, -(2**63)):
        assert mix_bits(torch.tensor(number)).item() % 2**64 == splitmix64(number % 2**64, 1)[0]


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


# --------------------------------------------------------------------------------------------------
# Keys and numbers of samples.


def test_a_key_is_splitmix64():
    """Published first outputs for seed 0, and the generator in exact integers."""
    assert splitmix64(0, 2) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    for word in (0, 1, 2**63 + 5, 2**64 - 1):
        assert counter_keys(word).item() == splitmix64(word, 1)[0]
    first = splitmix64(7, 1)[0]
    assert counter_keys(7, 12).item() == splitmix64((first + 12) % 2**64, 1)[0]


def test_words_broadcast_and_their_order_matters():
    keys = counter_keys(3, np.arange(5)[:, None], np.array([8, -1]))
    assert keys.shape == (5, 2)
    assert keys.dtype == np.uint64
    assert keys[4, 1] == counter_keys(3, 4, -1).item()
    assert counter_keys(1, 2).item() != counter_keys(2, 1).item()


def test_no_two_of_many_neighbouring_words_share_a_key():
    keys = counter_keys(np.arange(20)[:, None, None], np.arange(50)[None, :, None], np.arange(300))
    assert len(np.unique(keys)) == keys.size


def test_numbers_depend_on_their_own_key_and_stream_alone():
    keys = counter_keys(0, np.arange(6))
    numbers = counter_uniform(keys, 4, 3)
    assert numbers.shape == (6, 3)
    np.testing.assert_array_equal(counter_uniform(keys[[5, 2]], 4, 3), numbers[[5, 2]])
    np.testing.assert_array_equal(counter_uniform(keys, 4, 2), numbers[:, :2])
    assert not np.isin(counter_uniform(keys, 5, 3), numbers).any()


@pytest.mark.parametrize('varied', ['seed', 'iteration', 'sample', 'stream', 'number'])
def test_numbers_are_uniform_along_every_counter(varied):
    counters = {'seed': 0, 'iteration': 0, 'sample': 0}
    if varied in counters:
        counters[varied] = np.arange(20_000)
    keys = counter_keys(*counters.values())
    if varied == 'stream':
        numbers = np.concatenate([counter_uniform(keys, stream, 1)[0] for stream in range(20_000)])
    else:
        numbers = counter_uniform(keys, 0, 20_000 if varied == 'number' else 1).ravel()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, 'uniform').pvalue > 1e-3
    pairs, _, _ = np.histogram2d(numbers[:-1], numbers[1:], bins=10)  # neighbours do not know of each other
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_no_samples():
    assert counter_uniform(counter_keys(0, np.arange(0)), 0, 4).shape == (0, 4)


# --------------------------------------------------------------------------------------------------
# Generators of a seed and an iteration.


def draw(*words):
    return torch.rand(1000, generator=seeded_generator(*words), dtype=torch.float64)


def test_equal_words_draw_equal_numbers():
    assert torch.equal(draw(3, 7), draw(3, 7))


def test_every_word_matters_and_so_does_its_place():
    draws = torch.stack([draw(*words) for words in ((0, 1), (1, 0), (0, 2), (1, 1), (0, 1, 0, 1))])
    correlation = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / 1000**0.5


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    draw(0)
    assert torch.equal(torch.get_rng_state(), state)
