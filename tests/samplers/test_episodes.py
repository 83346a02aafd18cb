import numpy as np
import pytest
from mmengine.dataset import DefaultSampler
from scipy.stats import chisquare

from mmkd_ext.samplers import EpisodeBatchSampler

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 20))


class Letters:
    """Twenty classes with twenty samples each, as an alphabet of Omniglot."""

    def __len__(self):
        return len(LABELS)

    def get_gt_labels(self):
        return LABELS


def build(*, rank=0, world_size=1, run_seed=3, epoch=0, **kwargs):
    sampler = DefaultSampler(Letters(), seed=run_seed)
    sampler.rank, sampler.world_size = rank, world_size
    sampler.set_epoch(epoch)
    options = {'batch_size': 40, 'num_ways': 5, 'num_shots': 3, 'num_queries': 5, 'num_episodes': 12, **kwargs}
    return EpisodeBatchSampler(sampler, **options)


def test_an_episode_is_class_major_with_different_samples():
    episodes = list(build())
    assert len(episodes) == 12
    for episode in episodes:
        labels = LABELS[episode].reshape(5, 8)
        assert (labels == labels[:, :1]).all()
        assert len(set(labels[:, 0])) == 5
        assert len(set(episode)) == 40


def test_a_class_may_be_used_up():
    for episode in build(batch_size=400, num_ways=20, num_shots=5, num_queries=15):
        assert sorted(episode) == list(range(400))


def test_classes_and_samples_are_equally_likely():
    plan = build(num_episodes=3000).plan(0)
    assert chisquare(np.bincount(LABELS[plan[:, 0]], minlength=20)).pvalue > 1e-3
    assert chisquare(np.bincount(plan[:, 0], minlength=400)).pvalue > 1e-3


@pytest.mark.parametrize('world_size', [2, 3, 4])
@pytest.mark.parametrize('seed', [None, 7])
def test_processes_share_out_the_episodes_of_one(world_size, seed):
    one = build(seed=seed).plan(0)
    for rank in range(world_size):
        assert np.array_equal(build(seed=seed, rank=rank, world_size=world_size).plan(0), one[rank::world_size])


def test_with_a_seed_episodes_are_the_same_in_every_epoch_and_run():
    first = list(build(seed=7))
    assert list(build(seed=7, epoch=4, run_seed=99)) == first
    assert list(build(seed=8)) != first
    assert list(build(seed=7, num_episodes=6)) == first[:6]


def test_without_one_they_depend_on_the_seed_of_the_run_and_the_epoch():
    first = list(build(epoch=1))
    assert list(build(epoch=1)) == first
    assert list(build(epoch=2)) != first
    assert list(build(epoch=1, run_seed=4)) != first


def test_errors():
    with pytest.raises(ValueError, match=r'batch_size .* 40, .*got 32'):
        build(batch_size=32)
    for name in ('num_ways', 'num_shots', 'num_queries', 'num_episodes'):
        with pytest.raises(ValueError, match=rf'EpisodeBatchSampler: .*{name} .*got 0'):
            build(**{name: 0})
    with pytest.raises(ValueError, match=r'5 processes .*got 12'):
        build(world_size=5)
    with pytest.raises(ValueError, match=r'21 classes.* 8 samples.*got 20.* 0'):
        build(num_ways=21, batch_size=168)
    with pytest.raises(ValueError, match=r'21 samples.*got 20.* 20 '):
        build(num_queries=18, batch_size=105)
