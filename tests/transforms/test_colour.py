import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from mmkd_ext.transforms import colour

RNG = np.random.default_rng(0)
CORNERS = np.stack(np.meshgrid(*3 * [[0, 1, 127, 128, 254, 255]]), axis=-1).reshape(12, 18, 3).astype(np.uint8)
TINTED = RNG.integers(0, 200, (40, 1, 1, 3)) + RNG.integers(0, 56, (40, 12, 18, 3))
IMAGES = np.concatenate([CORNERS[None], RNG.integers(0, 256, (40, 12, 18, 3)), TINTED]).astype(np.uint8)
BATCH = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def with_pil(name, factors):
    """torchvision's function on PIL images, one by one."""
    function = getattr(functional, name)
    images = [
        np.asarray(function(Image.fromarray(image), float(factor)))
        for image, factor in zip(IMAGES, factors, strict=True)
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


LIGHT = ['adjust_brightness', 'adjust_contrast', 'adjust_saturation']


def test_light_is_pils():
    """Each kind for a third of the images, in turn."""
    factors = torch.cat([torch.tensor([0.0, 1.0, 2.0]).repeat_interleave(3), torch.rand(len(BATCH) - 9) * 2])
    kinds = torch.arange(len(BATCH)) % 3
    result = colour.adjust_light(BATCH, kinds, factors)
    for kind, name in enumerate(LIGHT):
        assert torch.equal(result[kinds == kind], with_pil(name, factors)[kinds == kind]), name


@pytest.mark.parametrize('kind', [colour.BRIGHTNESS, colour.CONTRAST, colour.SATURATION])
def test_factor_one_changes_nothing(kind):
    kinds = torch.full((len(BATCH),), kind)
    assert torch.equal(colour.adjust_light(BATCH, kinds, torch.ones(len(BATCH))), BATCH)


def test_hue_is_pils():
    """To a grey level, as the last bit of a float decides what PIL cuts off, and that in one value of a thousand."""
    shifts = torch.cat([torch.tensor([0.0, 0.5, -0.5]), torch.rand(len(BATCH) - 3) - 0.5])
    difference = (colour.adjust_hue(BATCH, shifts).int() - with_pil('adjust_hue', shifts).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_grey_is_pils():
    expected = np.stack([np.asarray(Image.fromarray(image).convert('L')) for image in IMAGES])
    np.testing.assert_array_equal(colour.grey(BATCH)[:, 0], expected)


def test_grey_images_have_no_hue_and_no_saturation():
    grey = BATCH[:, :1].expand(-1, 3, -1, -1)
    factors = torch.rand(len(grey))
    assert torch.equal(colour.adjust_hue(grey, factors - 0.5), grey)
    saturation = torch.full((len(grey),), colour.SATURATION)
    assert torch.equal(colour.adjust_light(grey, saturation, 3 * factors), grey)


def test_no_images():
    none = BATCH[:0]
    assert colour.adjust_hue(none, torch.zeros(0)).shape == none.shape
    assert colour.adjust_light(none, torch.zeros(0, dtype=torch.int64), torch.zeros(0)).shape == none.shape
