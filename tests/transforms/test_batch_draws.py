import numpy as np

from mmkd_ext.ops.random import counter_keys
from mmkd_ext.transforms.draws import BatchDraws

KEYS = counter_keys(0, np.arange(6))


def test_each_draw_is_new_and_repeats_for_the_same_keys():
    draws, again = BatchDraws(KEYS), BatchDraws(KEYS)
    first, second = draws.uniform(2), draws.uniform(2)
    assert not np.isin(first, second).any()
    np.testing.assert_array_equal(again.uniform(2), first)
    np.testing.assert_array_equal(again.uniform(2), second)


def test_part_of_the_images_draws_what_it_would_in_the_whole():
    whole, draws = BatchDraws(KEYS), BatchDraws(KEYS)
    whole.uniform(1)
    draws.uniform(1)
    part = draws.select(np.array([4, 1]))
    assert len(part) == 2
    np.testing.assert_array_equal(part.uniform(3), whole.uniform(3)[[4, 1]])
    np.testing.assert_array_equal(draws.uniform(1), whole.uniform(1))  # goes on behind the part


def test_views_draw_for_themselves():
    views = BatchDraws(KEYS).views(0, 3).uniform(2).reshape(3, 6, 2)
    assert len(np.unique(views)) == views.size
    np.testing.assert_array_equal(BatchDraws(KEYS).views(1, 2).uniform(2).reshape(2, 6, 2), views[1:])
