from itertools import islice

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import SequentialSampler

from mmkd_ext.samplers import PlannedBatchSampler


class Counting(PlannedBatchSampler):
    """Batch j of epoch e is [100 e + j]."""

    def __len__(self):
        return 3

    def plan(self, epoch):
        return 100 * epoch + np.arange(3)[:, None]


def test_the_epoch_is_that_of_the_inner_sampler():
    batches = Counting(DefaultSampler(range(9), seed=0), 1)
    assert list(batches) == [[0], [1], [2]]
    batches.sampler.set_epoch(2)  # what mmengine's DistSamplerSeedHook does
    assert list(batches) == [[200], [201], [202]]


def test_over_an_infinite_sampler_epochs_follow_each_other():
    batches = Counting(InfiniteSampler(range(9), seed=0), 1)
    assert list(islice(batches, 5)) == [[0], [1], [2], [100], [101]]


def test_the_plan_is_made_with_the_first_batch():
    class Unready(Counting):
        def plan(self, epoch):
            raise RuntimeError('not yet')

    iterator = iter(Unready(DefaultSampler(range(9), seed=0), 1))
    with pytest.raises(RuntimeError, match='not yet'):
        next(iterator)


def test_errors():
    with pytest.raises(TypeError, match=r'Counting: .*DefaultSampler .*got Sequential'):
        Counting(SequentialSampler(range(9)), 1)
    bare = PlannedBatchSampler(DefaultSampler(range(9), seed=0), 1)
    with pytest.raises(NotImplementedError, match='define it'):
        len(bare)
    with pytest.raises(NotImplementedError, match='define it'):
        next(iter(bare))
