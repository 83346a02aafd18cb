import numpy as np
import pytest

from mmkd_ext.datasets import ArrayDataset

IMAGES = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)


class InMemory(ArrayDataset):
    METAINFO = {'classes': ('a', 'b', 'c')}  # noqa: RUF012

    def load_arrays(self):
        return IMAGES, np.array([0, 2, 1, 2], dtype=np.uint8)


def test_samples_labels_and_classes():
    dataset = InMemory()
    assert len(dataset) == 4
    assert dataset.metainfo['classes'] == ('a', 'b', 'c')
    np.testing.assert_array_equal(dataset.get_gt_labels(), [0, 2, 1, 2])
    np.testing.assert_array_equal(dataset[1]['img'], IMAGES[1])
    assert dataset[1]['gt_label'] == 2
    assert type(dataset[1]['gt_label']) is int
    assert dataset.get_cat_ids(3) == [2]


def test_a_pipeline_cannot_damage_the_data():
    def paint_black(info):
        info['img'][:] = 0
        return info

    dataset = InMemory(pipeline=[paint_black])
    before = IMAGES.copy()
    assert dataset[2]['img'].max() == 0
    np.testing.assert_array_equal(IMAGES, before)


def test_indices_choose_a_part():
    dataset = InMemory(indices=[3, 0])
    np.testing.assert_array_equal(dataset.get_gt_labels(), [2, 0])


def test_lazy_data_set_loads_for_its_labels():
    np.testing.assert_array_equal(InMemory(lazy_init=True).get_gt_labels(), [0, 2, 1, 2])


def test_missing_loader():
    with pytest.raises(NotImplementedError, match=r'expected its own load_arrays\(\)'):
        ArrayDataset()
