"""Colour changes of a batch of 8-bit images, each with a factor of its own, to the grey level those of PIL.

Brightness, contrast and saturation are PIL's ``ImageEnhance``, hue is torchvision's ``adjust_hue`` of PIL images.

Shape suffixes: B images, H x W pixels, 3 channels: red, green, blue; 1 a channel of its own.
"""

import torch
from torch import Tensor

__all__ = ['BRIGHTNESS', 'CONTRAST', 'SATURATION', 'adjust_hue', 'adjust_light', 'grey']

BRIGHTNESS, CONTRAST, SATURATION = range(3)
"""Kinds of :func:`adjust_light`."""

# ITU-R 601-2 luma in units of 2^-16.
_LUMA = (19595, 38470, 7471)


def grey(images_B3HW: Tensor) -> Tensor:
    """Return the luma 0.299 R + 0.587 G + 0.114 B, rounded.

    Args:
        images_B3HW: (B, 3, H, W), uint8.

    Returns:
        (B, 1, H, W), int32 in 0..255.
    """
    red, green, blue = images_B3HW.int().split(1, dim=1)
    luma = (_LUMA[0] * red).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return luma.add_(0x8000).bitwise_right_shift_(16)


def adjust_light(images_B3HW: Tensor, kind_B: Tensor, factor_B: Tensor) -> Tensor:
    """Blend with black (brightness), the image's mean grey (contrast) or the grey image (saturation).

    Args:
        images_B3HW: (B, 3, H, W), uint8.
        kind_B: (B,), int64, which of :data:`BRIGHTNESS`, :data:`CONTRAST` and :data:`SATURATION` changes.
        factor_B: (B,), float32 >= 0; 0 is what is blended with, 1 the image, more exaggerates the difference.

    Returns:
        (B, 3, H, W), uint8.
    """
    kind_B111 = kind_B.view(-1, 1, 1, 1)
    grey_B1HW = grey(images_B3HW)
    num_pixels = images_B3HW.shape[2] * images_B3HW.shape[3]
    # In integers, as a rounded mean of floats may fall on the other side of one half.
    total_B111 = grey_B1HW.sum(dim=(2, 3), keepdim=True, dtype=torch.int32)
    mean_B111 = (2 * total_B111 + num_pixels) // (2 * num_pixels)
    base_B1HW = torch.where(kind_B111 == CONTRAST, mean_B111, grey_B1HW).masked_fill(kind_B111 == BRIGHTNESS, 0)
    blend_B3HW = (images_B3HW - base_B1HW).mul(factor_B.view(-1, 1, 1, 1)).add_(base_B1HW)
    return blend_B3HW.clamp_(0, 255).to(torch.uint8)


def adjust_hue(images_B3HW: Tensor, shift_B: Tensor) -> Tensor:
    """Turn the circle of hues, in PIL's HSV with 8 bits for hue and saturation.

    Args:
        images_B3HW: (B, 3, H, W), uint8.
        shift_B: (B,), float32 in [-0.5, 0.5] turns, on the same device.

    Returns:
        (B, 3, H, W), uint8.
    """
    hue, saturation, value = _to_hsv(images_B3HW.float())
    hue = (hue + torch.trunc(shift_B.view(-1, 1, 1, 1) * 255)) % 256
    return _from_hsv(hue, saturation, value)


def _to_hsv(images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation (both cut off to 8 bits) and value, each (B, 1, H, W), in 0..255.

    float32 and float64 alternate as in PIL: a rounding more or less moves what is cut off to another hue.
    """
    value, brightest = images_B3HW.max(dim=1, keepdim=True)
    chroma = value - images_B3HW.amin(dim=1, keepdim=True)
    distances_B3HW = (value - images_B3HW) / chroma.clamp(min=1)
    red, green, blue = distances_B3HW.double().split(1, dim=1)
    sector = torch.where(brightest == 0, blue - green, torch.where(brightest == 1, 2 + red - blue, 4 + green - red))
    turns = ((sector.float().double() / 6 + 1) % 1).float()
    saturation = chroma / value.clamp(min=1)
    hue, saturation = (torch.floor(part.double() * 255).float() for part in (turns, saturation))
    return hue.masked_fill(chroma == 0, 0), saturation, value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The image (B, 3, H, W): each channel falls from the value by a trapezium over the circle of hues."""
    offsets_311 = torch.arange(5, 0, -2, device=hue.device).view(3, 1, 1)  # of red, green and blue, in sixths
    position = (offsets_311 + hue * 6 / 255) % 6
    depth = torch.minimum(position, 4 - position).clamp(0, 1)
    return torch.floor(value * (1 - saturation / 255 * depth) + 0.5).to(torch.uint8)
