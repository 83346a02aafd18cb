from itertools import chain

import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from mmkd_ext.engine.runner import EndlessBatches, ResumableBatchSampler

DATA = list(range(10))


def endless(epoch=0, position=0, num_skipped=0, under_batch_sampler=False):
    inner = BatchSampler(DefaultSampler(DATA, shuffle=True, seed=0), batch_size=4, drop_last=False)
    batches = ResumableBatchSampler(inner, seed=0)
    loader = DataLoader(DATA, batch_sampler=batches)
    # As mmengine builds them: without a batch sampler of its own, the loader knows the sampler.
    vars(loader)['sampler'] = SequentialSampler(DATA) if under_batch_sampler else inner.sampler
    return EndlessBatches(loader, batches, epoch, position, num_skipped)


def take(iterator, number):
    return [next(iterator).tolist() for _ in range(number)]


@pytest.mark.parametrize('under_batch_sampler', [False, True])
def test_each_pass_is_whole_and_in_another_order(under_batch_sampler):
    batches = take(endless(under_batch_sampler=under_batch_sampler), 6)
    passes = [[*chain(*batches[:3])], [*chain(*batches[3:])]]
    assert sorted(passes[0]) == sorted(passes[1]) == DATA
    assert passes[0] != passes[1]


@pytest.mark.parametrize('done', range(7))
def test_resumes_anywhere(done):
    whole = endless()
    expected = take(whole, 8)[done:]
    until = endless()
    take(until, done)
    assert take(endless(until.epoch, until.position), 8 - done) == expected


def test_batches_that_the_loop_skips_cost_nothing():
    """mmengine asks for each of them, onedl-mmengine says how many."""
    expected = take(endless(position=2), 2)
    iterator = endless(position=2, num_skipped=5)
    assert [next(iterator) for _ in range(5)] == [None] * 5
    assert take(iterator, 2) == expected
    iterator = iter(endless(position=2))
    iterator.skip_iter(5)
    assert take(iterator, 2) == expected
