from itertools import chain, islice

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, SequentialSampler

from mmkd_ext.samplers import QuotaBatchSampler


class Split:
    def __init__(self, num_labelled, num_unlabelled):
        kinds = np.repeat([True, False], [num_labelled, num_unlabelled])
        self.labelled = np.random.default_rng(0).permutation(kinds)

    def __len__(self):
        return len(self.labelled)


def build(split, *, rank=0, world_size=1, seed=3, epoch=0, kind=DefaultSampler, **kwargs):
    sampler = kind(split, shuffle=True, seed=seed)
    sampler.rank, sampler.world_size = rank, world_size
    if kind is DefaultSampler:
        sampler.set_epoch(epoch)
    return QuotaBatchSampler(sampler, **{'batch_size': 10, 'num_unlabelled': 4, **kwargs})


@pytest.mark.parametrize('world_size', [1, 2, 3])
@pytest.mark.parametrize('drop_last', [True, False])
@pytest.mark.parametrize('sizes', [(200, 61), (37, 250), (100, 100)])
def test_quota_length_and_disjoint_processes(world_size, drop_last, sizes):
    split = Split(*sizes)
    ranks = [build(split, rank=r, world_size=world_size, drop_last=drop_last) for r in range(world_size)]
    rounding = np.floor if drop_last else np.ceil
    expected = max(rounding(sizes[0] / 6 / world_size), rounding(sizes[1] / 4 / world_size))
    assert {len(sampler) for sampler in ranks} == {expected}
    steps = list(zip(*map(list, ranks), strict=True))
    assert len(steps) == expected
    for batches in steps:
        for batch in batches:
            assert [bool(split.labelled[index]) for index in batch] == [True] * 6 + [False] * 4
        drawn = list(chain(*batches))
        assert len(set(drawn)) == len(drawn)


def test_every_image_of_the_longer_pool_once_per_epoch():
    split = Split(60, 12)
    drawn = list(chain(*build(split)))
    counts = np.bincount(drawn, minlength=len(split))
    assert (counts[split.labelled] == 1).all()
    assert counts[~split.labelled].sum() == 40  # ten steps of four from a pool of twelve
    assert set(counts[~split.labelled]) <= {3, 4}


def test_without_drop_last_no_image_is_left_out():
    split = Split(61, 12)
    assert set(chain(*build(split, drop_last=False))) == set(range(73))


def test_the_shorter_pool_starts_again_in_a_new_order():
    split = Split(600, 8)
    unlabelled = [tuple(batch[6:]) for batch in build(split)]
    passes = [tuple(chain(*unlabelled[start : start + 2])) for start in range(0, 100, 2)]
    assert all(set(one) == set(np.flatnonzero(~split.labelled)) for one in passes)
    assert len(set(passes)) > 40


def test_order_depends_on_seed_and_epoch_alone():
    split = Split(60, 40)
    first = list(build(split, seed=3, epoch=1))
    assert list(build(split, seed=3, epoch=1)) == first
    assert list(build(split, seed=3, epoch=2)) != first
    assert list(build(split, seed=5, epoch=1)) != first


def test_epoch_is_read_from_the_inner_sampler():
    batches = build(Split(60, 40))
    first = list(batches)
    batches.sampler.set_epoch(1)  # what mmengine's DistSamplerSeedHook does
    assert list(batches) != first


def test_infinite_sampler_never_ends():
    split = Split(60, 40)
    batches = list(islice(iter(build(split, kind=InfiniteSampler)), 35))
    assert len(batches) == 35
    assert batches[:10] != batches[10:20]
    assert all(split.labelled[batch].sum() == 6 for batch in batches)


def test_a_runner_builds_it(case):
    runner = case.build(
        train_dataloader={
            'batch_size': 64,
            'num_workers': 0,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_sampler': {'type': 'mmkd_ext.QuotaBatchSampler', 'num_unlabelled': 16},
            'collate_fn': {'type': 'default_collate'},
            'dataset': {
                'type': 'mmkd_ext.NovelClassSplit',
                'known': 5,
                'dataset': {'type': 'mmkd_ext.Digits', 'pipeline': [{'type': 'PackInputs', 'meta_keys': ()}]},
            },
        },
        randomness={'seed': 0},
        default_scope='mmpretrain',
    )
    loader = runner.train_dataloader
    assert len(loader) == 600 // 16
    for batch in islice(loader, 3):
        labels = [int(sample.gt_label) for sample in batch['data_samples']]
        assert min(labels[:48]) >= 0
        assert labels[48:] == [-1] * 16


def test_part_of_the_data_under_num_batch_per_epoch():
    split = Split(60, 40)
    split.__class__ = type('Sliced', (Split,), {'__len__': lambda self: 50})
    assert max(chain(*build(split))) < 50


def test_errors():
    split = Split(20, 20)
    with pytest.raises(ValueError, match=r'num_unlabelled in 1..9 .*got 10'):
        build(split, num_unlabelled=10)
    with pytest.raises(ValueError, match='but got 0'):
        build(split, num_unlabelled=0)
    with pytest.raises(ValueError, match=r'4 x 6 processes .*got 20'):
        build(Split(100, 20), world_size=6)
    with pytest.raises(TypeError, match=r'DefaultSampler .*got Sequential'):
        QuotaBatchSampler(SequentialSampler(split), batch_size=10, num_unlabelled=4)
    with pytest.raises(TypeError, match=r'`labelled` .*got list'):
        build([1, 2, 3])
    assert not isinstance(build(split), BatchSampler)
