import numpy as np
import pytest
from scipy.stats import chisquare

from mmkd_ext.functional import draw_episodes

# Twelve classes with 8 to 19 samples, mixed; names of classes are any numbers.
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(12) * 5 - 7, np.arange(8, 20)))


def draw(seed=0, num_episodes=50, num_ways=5, num_samples=6):
    return draw_episodes(LABELS, num_ways, num_samples, num_episodes, np.random.default_rng(seed))


def test_ways_are_different_classes_and_samples_different_members_of_them():
    episodes = draw()
    assert episodes.shape == (50, 5, 6)
    labels = LABELS[episodes]
    assert (labels == labels[:, :, :1]).all()
    for episode in episodes:
        assert len(set(LABELS[episode[:, 0]])) == 5
        assert len(set(episode.ravel())) == 30


def test_the_seed_decides():
    np.testing.assert_array_equal(draw(seed=3), draw(seed=3))
    assert (draw(seed=3) != draw(seed=4)).any()


def test_more_episodes_begin_with_the_same():
    np.testing.assert_array_equal(draw(num_episodes=9), draw(num_episodes=50)[:9])


def test_a_class_may_be_used_up():
    episodes = draw_episodes(np.repeat([4, 2], 3), 2, 3, 5, np.random.default_rng(0))
    assert all(sorted(episode.ravel()) == list(range(6)) for episode in episodes)


def test_classes_and_members_are_equally_likely():
    episodes = draw(num_episodes=4000)
    first = episodes[:, 0]
    counts = np.unique(LABELS[first[:, 0]], return_counts=True)[1]
    assert chisquare(counts).pvalue > 1e-3
    smallest = np.flatnonzero(LABELS == -7)
    drawn = first[LABELS[first[:, 0]] == -7, 0]
    assert chisquare([(drawn == member).sum() for member in smallest]).pvalue > 1e-3


@pytest.mark.parametrize(
    ('num_ways', 'num_samples', 'found'),
    [(13, 6, '12, of which 0'), (5, 9, '12, of which 1'), (5, 20, '12, of which 12')],
)
def test_too_little_data(num_ways, num_samples, found):
    with pytest.raises(ValueError, match=f'expected at least {num_ways} classes, each .* but got {found} are smaller'):
        draw(num_ways=num_ways, num_samples=num_samples)
