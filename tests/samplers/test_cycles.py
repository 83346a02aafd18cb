import numpy as np
import pytest
from scipy.stats import chisquare

from mmkd_ext.samplers.planned import draw_distinct, draw_in_cycles


def draw(sizes, groups, counts, seed=0):
    """The draws of each request, as lists."""
    counts = np.asarray(counts)
    drawn = draw_in_cycles(np.asarray(sizes), np.asarray(groups), counts, np.random.default_rng(seed))
    return [part.tolist() for part in np.split(drawn, np.cumsum(counts)[:-1])]


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 7, 8, 13, 100])
@pytest.mark.parametrize('count', [1, 3, 4, 8])
def test_a_request_has_no_member_twice_and_members_are_drawn_equally_often(size, count):
    requests = draw([size], np.zeros(61, dtype=int), [count] * 61)
    for members in requests:
        times = np.bincount(members, minlength=size)
        assert times.max() - times.min() <= 1 or (size > count and times.max() == 1)
    if size >= count:
        times = np.bincount(np.concatenate(requests), minlength=size)
        assert times.max() - times.min() <= 1
        deck = np.concatenate(requests)[:size]
        assert len(set(deck.tolist())) == min(size, 61 * count)  # none comes again before all have come


def test_groups_do_not_touch_each_other_and_answers_come_in_the_order_of_the_requests():
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 20, size=30)
    groups = generator.integers(0, 30, size=500)
    requests = draw(sizes, groups, np.minimum(3, sizes[groups]))
    for group, size in enumerate(sizes):
        stream = [
            member for asked, members in zip(groups, requests, strict=True) if asked == group for member in members
        ]
        for start in range(0, len(stream) - size + 1, size):  # deck after deck
            assert sorted(stream[start : start + size]) == list(range(size))


def test_requests_of_different_sizes_across_many_decks():
    counts = np.random.default_rng(2).integers(1, 8, size=400)
    requests = draw([7], np.zeros(400, dtype=int), counts)
    assert all(len(set(members)) == len(members) for members in requests)


@pytest.mark.parametrize('place', [0, 3, 4, 9])
def test_every_member_is_equally_likely_at_every_place(place):
    # 4 of 5: most requests span two decks.
    drawn = [draw([5], [0, 0, 0], [4, 4, 4], seed)[place // 4][place % 4] for seed in range(1000)]
    assert chisquare(np.bincount(drawn, minlength=5)).pvalue > 1e-3


def test_pairs_within_one_deck_are_equally_likely():
    pairs = [tuple(sorted(draw([5], [0], [2], seed)[0])) for seed in range(2000)]
    assert chisquare(np.unique(pairs, axis=0, return_counts=True)[1]).pvalue > 1e-3


def test_nothing_wanted():
    assert draw_in_cycles(np.array([3]), *np.zeros((2, 0), dtype=int), np.random.default_rng(0)).size == 0


def test_draw_distinct():
    sizes = np.array([1, 3, 5, 50])
    for seed in range(50):
        drawn = draw_distinct(sizes, 5, np.random.default_rng(seed))
        for row, size in zip(drawn, sizes, strict=True):
            members = row[row >= 0]
            assert len(set(members)) == len(members) == min(size, 5)
            assert members.max() < size
            assert (row[len(members) :] == -1).all()


def test_draw_distinct_is_uniform_over_subsets_and_places():
    drawn = draw_distinct(np.full(6000, 4), 2, np.random.default_rng(0))
    assert chisquare(np.unique(drawn, axis=0, return_counts=True)[1]).pvalue > 1e-3
    assert len(np.unique(drawn, axis=0)) == 12
