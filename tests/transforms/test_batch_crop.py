import numpy as np
import pytest
import torch
from scipy import stats

from mmkd_ext.ops.random import counter_keys
from mmkd_ext.transforms.crop import BatchRandomCrop, BatchRandomFlip, BatchRandomResizedCrop
from mmkd_ext.transforms.draws import BatchDraws

# Each pixel tells its place: (row, column, 200).
PLACES = torch.stack([*torch.meshgrid(torch.arange(32), torch.arange(32), indexing='ij'), torch.full((32, 32), 200)])


def run(transform, num_images, seed=0):
    images = PLACES.byte().expand(num_images, -1, -1, -1)
    return transform(images, BatchDraws(counter_keys(seed, np.arange(num_images))))


def test_crop_shifts_by_up_to_the_padding():
    crops = run(BatchRandomCrop(32, padding=4), 8000).int()
    assert crops.shape == (8000, 3, 32, 32)
    top, left = crops[:, 0, 10, 16] - 10, crops[:, 1, 16, 10] - 10
    counts = np.histogram2d(top, left, bins=9, range=((-4.5, 4.5), (-4.5, 4.5)))[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    is_black = crops[:, 2] == 0
    assert torch.equal(is_black.flatten(1).sum(1), 1024 - (32 - top.abs()) * (32 - left.abs()))


def test_crop_of_a_larger_image():
    assert run(BatchRandomCrop(20), 7).shape == (7, 3, 20, 20)


def test_crop_that_is_larger_than_the_padded_image():
    with pytest.raises(ValueError, match=r'at least 34 pixels for size 36 and padding 1 but got 32 x 32'):
        run(BatchRandomCrop(36, padding=1), 1)


def test_resized_crop_shows_areas_of_the_image_in_range():
    crops = run(BatchRandomResizedCrop(18, scale=(0.3, 0.8)), 4000).float()
    assert crops.shape == (4000, 3, 18, 18)
    height, width = ((crops[:, axis].amax((1, 2)) - crops[:, axis].amin((1, 2))) * 18 / 17 for axis in (0, 1))
    area = height * width / 1024  # to a pixel in each side, 7 %
    assert 0.23 < area.min() < 0.37
    assert 0.73 < area.max() < 0.87
    assert area.mean() == pytest.approx(0.55, abs=0.02)
    assert (crops[:, 2] == 200).all()


def test_flip_mirrors_every_other_image():
    flipped = run(BatchRandomFlip(), 4000)
    is_mirrored = flipped[:, 1, 0, 0] == 31
    assert stats.binomtest(int(is_mirrored.sum()), 4000, 0.5).pvalue > 1e-3
    images = PLACES.byte().expand(4000, -1, -1, -1)
    assert torch.equal(flipped[is_mirrored], images[is_mirrored].flip(3))
    assert torch.equal(flipped[~is_mirrored], images[~is_mirrored])


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: BatchRandomCrop(0), 'expected size > 0'),
        (lambda: BatchRandomCrop(8, padding=-1), 'expected padding >= 0'),
        (lambda: BatchRandomResizedCrop(8, scale=(0.8, 0.3)), r'expected scale \(low, high\)'),
        (lambda: BatchRandomResizedCrop(8, ratio=(0.0, 1.0)), r'expected ratio \(low, high\)'),
    ],
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: BatchRandomCrop(32.5, 4), 'BatchRandomCrop: expected size to be an integer but got 32.5; give whole'),
        (lambda: BatchRandomCrop(32, 4.0), 'BatchRandomCrop: expected padding to be an integer but got 4.0'),
        (lambda: BatchRandomCrop(True), 'BatchRandomCrop: expected size to be an integer but got True'),
        (lambda: BatchRandomResizedCrop(18.0), 'BatchRandomResizedCrop: expected size to be an integer but got 18.0'),
    ],
)
def test_pixels_are_whole(build, message):
    with pytest.raises(TypeError, match=message):
        build()
