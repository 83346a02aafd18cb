import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from mmkd_ext.visualization import Assignment, small_picture, thumbnail

EXPECTED = Assignment(5, 'test', 0, 0, 0, 1.0, 1.0)


def dataset(image):
    return [{'inputs': image, 'data_samples': BaseDataElement(metainfo={'sample_idx': 5, 'split_name': 'test'})}]


def test_small_image_keeps_its_pixels():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    np.testing.assert_array_equal(thumbnail(dataset(image), 0, EXPECTED, is_bgr=False), image.permute(1, 2, 0))


def test_bgr_becomes_rgb():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    image[0] = 200
    assert thumbnail(dataset(image), 0, EXPECTED, is_bgr=True)[0, 0].tolist() == [0, 0, 200]


def test_grey_image_gets_three_channels():
    assert thumbnail(dataset(torch.ones(1, 4, 4)), 0, EXPECTED, is_bgr=False).shape == (4, 4, 3)


def test_large_image_is_made_small_in_proportion():
    image = torch.full((3, 448, 224), 77, dtype=torch.uint8)
    picture = thumbnail(dataset(image), 0, EXPECTED, is_bgr=False)
    assert picture.shape == (96, 48, 3)
    assert (picture == 77).all()


def test_another_sample_at_the_position_is_refused():
    other = Assignment(6, 'test', 0, 0, 0, 1.0, 1.0)
    with pytest.raises(RuntimeError, match=r"expected sample \(6, 'test'\) at position 0 .* but got \(5, 'test'\)"):
        thumbnail(dataset(torch.ones(3, 4, 4)), 0, other, is_bgr=False)


def test_picture_of_a_tensor_alone():
    image = torch.randint(0, 256, (1, 5, 7), dtype=torch.uint8)
    np.testing.assert_array_equal(small_picture(image, is_bgr=False), image.expand(3, -1, -1).permute(1, 2, 0))
