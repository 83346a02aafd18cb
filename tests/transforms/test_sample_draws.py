import numpy as np
import pytest
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement

from mmkd_ext.transforms.draws import sample_draws


def samples(*indices):
    return [BaseDataElement(metainfo={'sample_idx': index}) for index in indices]


def say(**info):
    MessageHub.get_current_instance().update_info_dict(info)


def test_keys_are_of_seed_iteration_and_sample():
    say(seed=3, iter=5)
    keys = sample_draws(samples(4, 9, 0), 3).keys_B
    assert len(set(keys.tolist())) == 3
    np.testing.assert_array_equal(sample_draws(samples(0, 4), 2).keys_B, keys[[2, 0]])
    for changed in ({'seed': 4, 'iter': 5}, {'seed': 3, 'iter': 6}, {'seed': 5, 'iter': 3}):
        say(**changed)
        assert not np.isin(sample_draws(samples(4, 9, 0), 3).keys_B, keys).any()


def test_a_sample_that_comes_again_draws_anew():
    say(seed=0, iter=0)
    keys = sample_draws(samples(4, 9, 4, 4), 4).keys_B
    assert len(set(keys.tolist())) == 4
    np.testing.assert_array_equal(sample_draws(samples(9, 4), 2).keys_B, keys[[1, 0]])


@pytest.mark.parametrize('data_samples', [None, [BaseDataElement(), *samples(1)], samples(0)])
def test_samples_without_an_index(data_samples):
    say(seed=0, iter=0)
    with pytest.raises(RuntimeError, match=r"expected 2 data samples with a sample_idx .* add 'sample_idx'"):
        sample_draws(data_samples, 2)


@pytest.mark.parametrize('info', [{}, {'seed': 0}, {'iter': 0}])
def test_outside_of_a_runner(info):
    say(**info)
    with pytest.raises(RuntimeError, match='expected the seed and the iteration of a Runner'):
        sample_draws(samples(0), 1)
