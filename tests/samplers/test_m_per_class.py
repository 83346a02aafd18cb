import numpy as np
import pytest
from mmengine.dataset import DefaultSampler
from scipy.stats import chisquare

from mmkd_ext.samplers import MPerClassBatchSampler


class Labelled:
    def __init__(self, labels):
        self.labels = np.asarray(labels)

    def __len__(self):
        return len(self.labels)

    def get_gt_labels(self):
        return self.labels


BIRDS = Labelled(np.random.default_rng(0).permutation(np.repeat(np.arange(100), 59)))  # the size of CUB's training set


def build(dataset, *, rank=0, world_size=1, seed=3, epoch=0, **kwargs):
    sampler = DefaultSampler(dataset, seed=seed)
    sampler.rank, sampler.world_size = rank, world_size
    sampler.set_epoch(epoch)
    return MPerClassBatchSampler(sampler, **{'batch_size': 128, 'num_batches': 10, **kwargs})


def test_the_batches_of_the_recipe():
    batches = list(build(BIRDS, num_batches=100))
    assert len(batches) == 100
    for batch in batches:
        assert len(set(batch)) == 128
        assert sorted(np.unique(BIRDS.labels[batch], return_counts=True)[1]) == [3] + [5] * 25


def test_a_small_class_gives_all_it_has():
    labels = np.repeat(np.arange(30), [1, 2, 3] * 10)
    for batch in build(Labelled(labels), batch_size=60, num_batches=3):
        assert sorted(batch) == list(range(60))


def test_unlabelled_samples_never_come():
    labels = np.where(np.arange(200) % 2, -1, np.arange(200) % 7)
    assert (labels[build(Labelled(labels), batch_size=30).plan(0)] >= 0).all()


def test_classes_and_samples_are_equally_likely():
    plan = build(BIRDS, num_batches=2000).plan(0)
    assert chisquare(np.bincount(BIRDS.labels[plan[:, 0]], minlength=100)).pvalue > 1e-3
    assert chisquare(np.bincount(plan.ravel(), minlength=5900)).pvalue > 1e-3


@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_get_disjoint_slices_of_the_same_steps(world_size):
    one = build(BIRDS, batch_size=60 * world_size).plan(0)
    ranks = [build(BIRDS, batch_size=60, rank=rank, world_size=world_size).plan(0) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(ranks, axis=1), one)
    assert all(len(set(step)) == len(step) for step in one)


def test_order_depends_on_seed_and_epoch_alone():
    first = list(build(BIRDS, epoch=1))
    assert list(build(BIRDS, epoch=1)) == first
    assert list(build(BIRDS, epoch=2)) != first
    assert list(build(BIRDS, seed=5, epoch=1)) != first


def test_errors():
    with pytest.raises(ValueError, match=r'512 samples .*4 processes .*100 classes .* 500'):
        build(BIRDS, world_size=4)
    with pytest.raises(ValueError, match=r'num_batches and samples_per_class .*got 0, 5'):
        build(BIRDS, num_batches=0)
    with pytest.raises(TypeError, match=r'get_gt_labels'):
        build(range(10))
