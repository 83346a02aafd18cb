import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomCrop, RandomResizedCrop, functional

from mmkd_ext.transforms.crop import crop_resize, random_crop_boxes, random_resized_crop_boxes

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8)
BATCH = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def resized_by_pil(boxes, size):
    images = [
        np.asarray(functional.resized_crop(Image.fromarray(image), *map(int, box), [size, size]))
        for image, box in zip(IMAGES, boxes, strict=True)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(('size', 'scale'), [(32, (0.5, 1.0)), (48, (0.2, 1.0)), (18, (0.3, 0.8)), (7, (0.3, 1.0))])
def test_resized_crops_are_pils(size, scale):
    """To a grey level for upright boxes, whose height some versions of PIL resize and round first."""
    boxes = random_resized_crop_boxes(RNG.random((len(IMAGES), 10, 4)), 32, 32, scale, (3 / 4, 4 / 3))
    result, expected = crop_resize(BATCH, torch.from_numpy(boxes), size), resized_by_pil(boxes, size)
    assert (result.int() - expected.int()).abs().max() <= 1
    is_wide = torch.from_numpy(boxes[:, 3] >= boxes[:, 2])
    assert is_wide.sum() > 40
    assert torch.equal(result[is_wide], expected[is_wide])


def test_crops_with_padding_are_pils():
    boxes = random_crop_boxes(RNG.random((len(IMAGES), 2)), 32, 32, 32, 4)
    padded = np.pad(IMAGES, ((0, 0), (4, 4), (4, 4), (0, 0)))
    expected = [
        image[top + 4 : top + 36, left + 4 : left + 36] for image, (top, left) in zip(padded, boxes[:, :2], strict=True)
    ]
    result = crop_resize(BATCH, torch.from_numpy(boxes), 32)
    np.testing.assert_array_equal(result.permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_in_autocast_pixels_stay_exact():
    boxes = torch.tensor([[0, 0, 32, 32]]).expand(len(BATCH), 4)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(crop_resize(BATCH, boxes, 32), BATCH)


def test_places_of_padded_crops_are_uniform():
    boxes = random_crop_boxes(RNG.random((20_000, 2)), 32, 32, 32, 4)
    counts = np.histogram2d(boxes[:, 0], boxes[:, 1], bins=9, range=((-4.5, 4.5), (-4.5, 4.5)))[0]
    assert counts.sum() == 20_000
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert (boxes[:, 2:] == 32).all()


def test_images_that_are_no_squares():
    boxes = random_crop_boxes(RNG.random((5000, 2)), 8, 20, 6, 1)
    assert np.unique(boxes[:, 0]).tolist() == list(range(-1, 4))
    assert np.unique(boxes[:, 1]).tolist() == list(range(-1, 16))


@pytest.mark.parametrize(
    ('scale', 'ratio', 'height', 'width'),
    [
        ((0.5, 1.0), (3 / 4, 4 / 3), 32, 32),
        ((0.3, 0.8), (3 / 4, 4 / 3), 32, 32),
        ((0.9, 1.0), (0.5, 0.6), 32, 32),  # most attempts fail, some of the central boxes
        ((0.2, 1.0), (1.0, 2.0), 20, 48),
    ],
)
def test_boxes_are_distributed_as_torchvisions(scale, ratio, height, width):
    image = torch.zeros(3, height, width)
    expected = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(4000)])
    boxes = random_resized_crop_boxes(RNG.random((4000, 10, 4)), height, width, scale, ratio)
    for side, other in zip(boxes.T, expected.T, strict=True):
        assert stats.ks_2samp(side, other).pvalue > 1e-3
    area, other_area = (values[:, 2] * values[:, 3] for values in (boxes, expected))
    assert stats.ks_2samp(area, other_area).pvalue > 1e-3


@pytest.mark.parametrize(('height', 'width'), [(32, 10), (10, 32), (16, 16)])
def test_where_no_attempt_fits_the_box_is_central_as_torchvisions(height, width):
    scale, ratio = (4.0, 4.0), (3 / 4, 4 / 3)
    boxes = random_resized_crop_boxes(RNG.random((2, 10, 4)), height, width, scale, ratio)
    expected = RandomResizedCrop.get_params(torch.zeros(3, height, width), list(scale), list(ratio))
    assert boxes.tolist() == [list(expected)] * 2


def test_no_images():
    assert random_resized_crop_boxes(np.zeros((0, 10, 4)), 32, 32, (0.5, 1.0), (1.0, 1.0)).shape == (0, 4)
    assert crop_resize(BATCH[:0], torch.zeros(0, 4), 18).shape == (0, 3, 18, 18)


def test_random_crop_of_torchvision_has_the_same_places():
    """The premise of the uniform test: all offsets of the padded image, both ends included."""
    places = {RandomCrop.get_params(torch.zeros(3, 40, 40), (32, 32))[0] for _ in range(400)}
    assert places == set(range(9))
