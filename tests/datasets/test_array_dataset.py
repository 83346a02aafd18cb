"""Data sets in memory, and the labels that they tell."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmkd_ext.datasets import ArrayDataset, Digits
from mmkd_ext.datasets.array_dataset import LabelledDataset

# --------------------------------------------------------------------------------------------------
# Array dataset.


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


# --------------------------------------------------------------------------------------------------
# Labelled dataset.


class Listed(LabelledDataset):
    def load_data_list(self):
        return [{'gt_label': label} for label in (3, -1, 0, 3)]

    def get_data_info(self, idx):
        raise AssertionError('loads an image')


@pytest.mark.parametrize('settings', [{}, {'serialize_data': False}, {'lazy_init': True}, {'indices': [0, 1, 2, 3]}])
def test_labels_need_no_image(settings):
    dataset = Listed(**settings)
    assert [dataset.get_cat_ids(index) for index in range(4)] == [[3], [-1], [0], [3]]
    labels = Listed(**settings).get_gt_labels()
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, -1, 0, 3]


def test_labels_of_a_part():
    assert Listed(indices=[2, 0]).get_gt_labels().tolist() == [0, 3]


# --------------------------------------------------------------------------------------------------
# Digits.


def images_of(dataset):
    return np.stack([dataset[index]['img'] for index in range(len(dataset))])


def test_split_is_complete_disjoint_and_stratified():
    train, test = Digits(split='train'), Digits(split='test')
    assert (len(train), len(test)) == (1201, 596)
    both = np.concatenate([images_of(train), images_of(test)]).reshape(1797, -1)
    expected = np.rint(load_digits().data / 16 * 255)
    np.testing.assert_array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])
    total = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(test.get_gt_labels()), total // 3)


def test_labels_belong_to_the_images():
    source = {image.tobytes(): label for image, label in zip(*load_digits(return_X_y=True), strict=True)}
    dataset = Digits(split='test')
    for index in range(0, len(dataset), 25):
        grey = dataset[index]['img'].astype(float).ravel() / 255 * 16
        assert source[np.rint(grey).tobytes()] == dataset[index]['gt_label']


def test_values_use_the_full_range():
    images = images_of(Digits(split='train'))
    assert images.shape == (1201, 8, 8)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)


def test_unknown_split():
    with pytest.raises(ValueError, match=r"Digits.*split.*'train', 'test'.*'val'"):
        Digits(split='val')
