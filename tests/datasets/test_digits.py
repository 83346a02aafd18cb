import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmkd_ext.datasets import Digits


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
    with pytest.raises(ValueError, match="expected split 'train' or 'test' but got 'val'"):
        Digits(split='val')
