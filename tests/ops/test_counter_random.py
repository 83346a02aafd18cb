import numpy as np
import pytest
from scipy import stats

from mmkd_ext.ops.random import counter_keys, counter_uniform


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
