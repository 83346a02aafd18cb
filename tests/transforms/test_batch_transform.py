import numpy as np
import pytest
import torch
from scipy import stats

from mmkd_ext.ops.random import counter_keys
from mmkd_ext.transforms.batch import BatchTransform
from mmkd_ext.transforms.draws import BatchDraws


class Brighten(BatchTransform):
    def transform(self, images_BCHW, draws):
        assert len(images_BCHW) == len(draws)
        return images_BCHW + 100


def draws(num_images, seed=0):
    return BatchDraws(counter_keys(seed, np.arange(num_images)))


def test_is_applied_with_its_probability_to_whole_images():
    images = torch.zeros(20_000, 1, 2, 2, dtype=torch.uint8)
    changed = Brighten(prob=0.3)(images, draws(20_000))
    assert images.max() == 0
    is_changed = changed.flatten(1).amax(1) == 100
    assert torch.equal(changed, 100 * is_changed.view(-1, 1, 1, 1).expand_as(images).byte())
    assert stats.binomtest(int(is_changed.sum()), 20_000, 0.3).pvalue > 1e-3


@pytest.mark.parametrize(('prob', 'value'), [(0, 0), (1, 100)])
def test_never_and_always(prob, value):
    images = torch.zeros(50, 1, 2, 2, dtype=torch.uint8)
    assert (Brighten(prob)(images, draws(50)) == value).all()


def test_none_of_no_images():
    assert Brighten(0.5)(torch.zeros(0, 3, 2, 2, dtype=torch.uint8), draws(0)).shape == (0, 3, 2, 2)


@pytest.mark.parametrize('prob', [-0.1, 1.1])
def test_other_probabilities(prob):
    with pytest.raises(ValueError, match=r'Brighten: expected prob in \[0, 1\]'):
        Brighten(prob)


def test_base_transforms_nothing():
    with pytest.raises(NotImplementedError, match=r'expected its own transform\(\)'):
        BatchTransform()(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), draws(1))
