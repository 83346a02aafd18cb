import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mmkd_ext.transforms.colour import equalize, solarize

RNG = np.random.default_rng(0)


def photos(size):
    """Images of every kind of histogram: dark, bright, few levels, one level, one bright pixel."""
    gamma = RNG.uniform(0.3, 4, (30, 1, 1, 1))
    images = [*(255 * RNG.random((30, size, size, 3)) ** gamma).astype(np.uint8)]
    images += [RNG.integers(100, 104, (size, size, 3), dtype=np.uint8), np.full((size, size, 3), 7, dtype=np.uint8)]
    spot = np.zeros((size, size, 3), dtype=np.uint8)
    spot[0, 0] = 255
    return np.stack([*images, spot, 255 - spot])


def as_batch(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize('size', [18, 32])
def test_equalize_is_pils(size):
    images = photos(size)
    expected = np.stack([np.asarray(ImageOps.equalize(Image.fromarray(image))) for image in images])
    assert torch.equal(equalize(as_batch(images)), as_batch(expected))


def test_solarize_is_pils():
    images = photos(18)
    thresholds = np.concatenate([[0, 256, 128, 127.5], RNG.uniform(0, 256, len(images) - 4)])
    expected = [
        np.asarray(ImageOps.solarize(Image.fromarray(image), threshold))
        for image, threshold in zip(images, thresholds, strict=True)
    ]
    assert torch.equal(solarize(as_batch(images), torch.from_numpy(thresholds)), as_batch(np.stack(expected)))


def test_grey_images_and_none():
    grey = as_batch(photos(18))[:, :1]
    assert torch.equal(equalize(grey), equalize(grey.expand(-1, 3, -1, -1).contiguous())[:, :1])
    assert equalize(grey[:0]).shape == grey[:0].shape
    assert solarize(grey[:0], torch.zeros(0)).shape == grey[:0].shape
