"""Colour and tone of a batch of 8-bit images, each with a factor of its own, to the grey level those of PIL.

Brightness, contrast and saturation are PIL's ``ImageEnhance``, hue is torchvision's ``adjust_hue`` of PIL images,
solarize and equalize are PIL's ``ImageOps``. The functions come first, then the transforms that draw their parameters.

Shape suffixes: B images, H x W pixels, 3 channels: red, green, blue (C: any number; 1 a channel of its own); R = B C
planes of P = H W pixels, 256 grey levels; 4 changes (brightness, contrast, saturation, hue), in as many turns.
"""

import numpy as np
import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_not_negative
from mmkd_ext.registry import MODELS
from mmkd_ext.transforms.batch import BatchTransform, upload
from mmkd_ext.transforms.draws import BatchDraws

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


# --------------------------------------------------------------------------------------------------
# Changes of the tone curve of a batch of 8-bit images, to the grey level those of PIL's ``ImageOps``.


def solarize(images_BCHW: Tensor, threshold_B: Tensor) -> Tensor:
    """Invert what is not below a threshold.

    Args:
        images_BCHW: (B, C, H, W), uint8.
        threshold_B: (B,), in grey levels, on the same device.

    Returns:
        (B, C, H, W), uint8.
    """
    return torch.where(images_BCHW < threshold_B.view(-1, 1, 1, 1), images_BCHW, 255 - images_BCHW)


def equalize(images_BCHW: Tensor) -> Tensor:
    """Spread the histogram of each image and channel evenly.

    Grey level g becomes ``(step // 2 + number of pixels below g) // step``, where 255 steps make up all pixels but
    the brightest; a plane with fewer pixels than that stays as it is.

    Args:
        images_BCHW: (B, C, H, W), uint8.

    Returns:
        (B, C, H, W), uint8.
    """
    planes_RP = images_BCHW.flatten(0, 1).flatten(1).long()
    histogram_R256 = torch.zeros(len(planes_RP), 256, dtype=torch.long, device=images_BCHW.device)
    histogram_R256.scatter_add_(1, planes_RP, torch.ones_like(planes_RP))
    num_brightest_R1 = histogram_R256.gather(1, planes_RP.amax(dim=1, keepdim=True))
    step_R1 = (planes_RP.shape[1] - num_brightest_R1) // 255
    num_below_R256 = histogram_R256.cumsum(dim=1) - histogram_R256
    curve_R256 = ((step_R1 // 2 + num_below_R256) // step_R1.clamp(min=1)).clamp(max=255)
    equalized_RP = torch.where(step_R1 == 0, planes_RP, curve_R256.gather(1, planes_RP))
    return equalized_RP.to(torch.uint8).view_as(images_BCHW)


# --------------------------------------------------------------------------------------------------
# Changes of colour and tone of a batch, :class:`~mmkd_ext.transforms.batch.BatchTransform`.


@MODELS.register_module()
class BatchColorJitter(BatchTransform):
    """Changes brightness, contrast, saturation and hue of RGB images by random factors, in a random order.

    An amount a draws a factor from [max(0, 1 - a), 1 + a], for hue a shift from [-a, a] turns; 0 leaves the property.

    Args:
        brightness: Amount >= 0.
        contrast: Amount >= 0.
        saturation: Amount >= 0.
        hue: Amount in [0, 0.5].
        prob: Of any change at all.

    Raises:
        ValueError: For an amount out of range.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        check_not_negative('BatchColorJitter', brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
        if hue > 0.5:
            raise ValueError(f'BatchColorJitter: expected hue <= 0.5 but got {hue}; half a turn reaches all hues')
        self.amounts = np.array([brightness, contrast, saturation, hue])

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Change the colours; see the base class."""
        if images_BCHW.shape[1] != 3:
            raise ValueError(
                f'BatchColorJitter: expected 3 channels, red, green and blue, but got {images_BCHW.shape[1]}; leave it '
                'out for grey images'
            )
        low_4 = np.append(np.maximum(0, 1 - self.amounts[:3]), -self.amounts[3])
        high_4 = np.append(1 + self.amounts[:3], self.amounts[3])
        device = images_BCHW.device
        factors_B4 = upload((low_4 + (high_4 - low_4) * draws.uniform(4)).astype(np.float32), device)
        order_B4 = draws.uniform(4).argsort(axis=1)
        turn_of_hue_B1 = order_B4.argmax(axis=1, keepdims=True)
        is_before_B4, is_after_B4 = np.arange(4) < turn_of_hue_B1, np.arange(4) > turn_of_hue_B1
        # The hue takes most of the work, so all images make this turn at once, whatever its number.
        images_BCHW = self._change_light(images_BCHW, factors_B4, order_B4, is_before_B4)
        if self.amounts[3]:
            images_BCHW = adjust_hue(images_BCHW, factors_B4[:, 3])
        return self._change_light(images_BCHW, factors_B4, order_B4, is_after_B4)

    @staticmethod
    def _change_light(images_BCHW: Tensor, factors_B4: Tensor, order_B4: np.ndarray, is_due_B4: np.ndarray) -> Tensor:
        """Make the turns that are due."""
        images_BCHW = images_BCHW.clone()
        for turn in range(4):
            chosen = np.flatnonzero(is_due_B4[:, turn])
            if len(chosen) == 0:
                continue
            rows, kinds = upload(np.stack([chosen, order_B4[chosen, turn]]), images_BCHW.device)
            images_BCHW[rows] = adjust_light(images_BCHW[rows], kinds, factors_B4[rows, kinds])
        return images_BCHW


@MODELS.register_module()
class BatchSolarize(BatchTransform):
    """Inverts what is not below a random grey level, uniform in [0, 256).

    Args:
        prob: Of being applied.
    """

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Solarize; see the base class."""
        return solarize(images_BCHW, upload(256 * draws.uniform(1)[:, 0], images_BCHW.device))


@MODELS.register_module()
class BatchEqualize(BatchTransform):
    """Spreads the histogram of each channel evenly.

    Args:
        prob: Of being applied.
    """

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Equalize; see the base class."""
        return equalize(images_BCHW)
