"""Crops and flips of a batch of images, each with a box of its own, and how random crops choose their boxes.

Boxes are chosen on the host from uniform numbers and have the rows (top, left, height, width), in pixels. The
distributions are those of torchvision's ``RandomCrop`` and ``RandomResizedCrop``, the pixels those of PIL.

Shape suffixes: B images, C channels, H x W pixels before and O x O after, A attempts at a box.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_not_negative, check_positive, full_precision
from mmkd_ext.registry import MODELS
from mmkd_ext.transforms.batch import BatchTransform, upload
from mmkd_ext.transforms.draws import BatchDraws

ATTEMPTS = 10
"""How often a random resized crop is drawn before the largest central one is taken."""

# PIL's weights are multiples of 2^-22, which decides what becomes of a sum that lies half-way between two grey levels.
_WEIGHT_UNITS = 2**22


def random_crop_boxes(uniform_B2: np.ndarray, height: int, width: int, size: int, padding: int) -> np.ndarray:
    """Choose squares of ``size``, each place in the padded image alike.

    Args:
        uniform_B2: (B, 2) in [0, 1).
        height: H.
        width: W.
        size: O, at most H and W plus twice the padding.
        padding: Pixels added on each side.

    Returns:
        (B, 4), int64; boxes reach ``padding`` pixels beyond the image.
    """
    places = np.array([height, width]) + 2 * padding - size + 1
    corner_B2 = np.floor(uniform_B2 * places).astype(np.int64) - padding
    return np.concatenate([corner_B2, np.full_like(corner_B2, size)], axis=1)


def random_resized_crop_boxes(
    uniform_BA4: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Choose boxes of a random area, uniform, and aspect ratio, log-uniform; the first attempt that fits counts.

    Where none fits, the box is the largest central one with an aspect ratio in range. Source: Szegedy et al., Going
    Deeper with Convolutions, CVPR 2015, https://arxiv.org/abs/1409.4842, section 6.

    Args:
        uniform_BA4: (B, A, 4) in [0, 1): area, aspect ratio, top and left of each attempt.
        height: H.
        width: W.
        scale: Range of the area, in parts of the image's.
        ratio: Range of width / height.

    Returns:
        (B, 4), int64, inside the image.
    """
    area_BA = height * width * (scale[0] + (scale[1] - scale[0]) * uniform_BA4[..., 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratio_BA = np.exp(low + (high - low) * uniform_BA4[..., 1])
    width_BA = np.rint(np.sqrt(area_BA * ratio_BA)).astype(np.int64)
    height_BA = np.rint(np.sqrt(area_BA / ratio_BA)).astype(np.int64)
    fits_BA = (width_BA > 0) & (width_BA <= width) & (height_BA > 0) & (height_BA <= height)
    top_BA = np.floor(uniform_BA4[..., 2] * (height - height_BA + 1)).astype(np.int64)
    left_BA = np.floor(uniform_BA4[..., 3] * (width - width_BA + 1)).astype(np.int64)
    boxes_BA4 = np.stack([top_BA, left_BA, height_BA, width_BA], axis=-1)
    boxes_B4 = boxes_BA4[np.arange(len(boxes_BA4)), fits_BA.argmax(axis=1)]
    return np.where(fits_BA.any(axis=1, keepdims=True), boxes_B4, _central_box(height, width, ratio))


@full_precision
def crop_resize(images_BCHW: Tensor, boxes_B4: Tensor, size: int) -> Tensor:
    """Cut a box out of each image and resize it, bilinear and antialiased, with the two passes of PIL.

    Each output pixel is a mean of input pixels, weighted by a triangle whose half width is one pixel, or as many as one
    output pixel covers. The horizontal pass is rounded before the vertical one; PIL rounds between them, too, but some
    versions of it take the passes of an upright box in the other order, and then differ by a grey level. A box of the
    output's size is cut out exactly.

    Args:
        images_BCHW: (B, C, H, W), uint8.
        boxes_B4: (B, 4), top, left, height and width in pixels, on the device of the images. Only a box of the output's
            size may reach beyond the image, which is black there.
        size: O.

    Returns:
        (B, C, O, O), uint8.
    """
    height, width = images_BCHW.shape[2:]
    corners, sides = boxes_B4.double().T.split(2)
    weights_BOH, weights_BOW = _triangles(corners, sides, max(height, width), size)
    rows_BOH, columns_BOW = weights_BOH[..., :height], weights_BOW[..., :width]
    rounded_BCHO = torch.floor(images_BCHW.double() @ columns_BOW.mT.unsqueeze(1) + 0.5)
    return torch.floor(rows_BOH.unsqueeze(1) @ rounded_BCHO + 0.5).to(torch.uint8)


def _triangles(start: Tensor, length: Tensor, size_in: int, size_out: int) -> Tensor:
    """Weights (2, B, size_out, size_in) of input in output pixels, down and across; rows sum to 1, or to 0 outside."""
    start, length = start[..., None, None], length[..., None, None]
    pixels_I = torch.arange(size_in, device=start.device) + 0.5
    step = length / size_out
    centres = start + step * (torch.arange(size_out, device=start.device) + 0.5).unsqueeze(1)
    is_inside = (pixels_I > start) & (pixels_I < start + length)
    weights = (1 - (pixels_I - centres).abs() / step.clamp(min=1)).clamp(min=0) * is_inside
    total = weights.sum(dim=-1, keepdim=True)
    weights = weights / total.masked_fill(total == 0, 1)
    return torch.floor(weights * _WEIGHT_UNITS + 0.5) / _WEIGHT_UNITS


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> np.ndarray:
    box_height, box_width = height, width
    if width < ratio[0] * height:
        box_height = round(width / ratio[0])
    elif width > ratio[1] * height:
        box_width = round(height * ratio[1])
    return np.array([(height - box_height) // 2, (width - box_width) // 2, box_height, box_width])


# --------------------------------------------------------------------------------------------------
# Crops and flips of a batch, :class:`~mmkd_ext.transforms.batch.BatchTransform`.


@MODELS.register_module()
class BatchRandomCrop(BatchTransform):
    """Cuts out a square at a random place of the image, which is padded with black before.

    Args:
        size: Side in pixels, at most the image's plus twice the padding.
        padding: Pixels added on each side.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If one is negative, or ``size`` 0.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        super().__init__()
        _check_whole('BatchRandomCrop', size=size, padding=padding)
        check_positive('BatchRandomCrop', size=size)
        check_not_negative('BatchRandomCrop', padding=padding)
        self.size = size
        self.padding = padding

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Crop; see the base class."""
        height, width = images_BCHW.shape[2:]
        if min(height, width) + 2 * self.padding < self.size:
            raise ValueError(
                f'BatchRandomCrop: expected images of at least {self.size - 2 * self.padding} pixels for size '
                f'{self.size} and padding {self.padding} but got {height} x {width}; raise the padding'
            )
        boxes_B4 = random_crop_boxes(draws.uniform(2), height, width, self.size, self.padding)
        return crop_resize(images_BCHW, upload(boxes_B4, images_BCHW.device), self.size)


@MODELS.register_module()
class BatchRandomResizedCrop(BatchTransform):
    """Cuts out a box of a random area and aspect ratio, and makes it a square, bilinear and antialiased as PIL.

    Args:
        size: Side of the square in pixels.
        scale: Range of the area, in parts of the image's.
        ratio: Range of width / height.

    Raises:
        TypeError: If ``size`` is no integer.
        ValueError: If it is below 1, or for an empty range.
    """

    def __init__(
        self, size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        super().__init__()
        _check_whole('BatchRandomResizedCrop', size=size)
        check_positive('BatchRandomResizedCrop', size=size)
        for name, values in (('scale', scale), ('ratio', ratio)):
            if len(values) != 2 or not 0 < values[0] <= values[1]:
                raise ValueError(
                    f'BatchRandomResizedCrop: expected {name} (low, high) with 0 < low <= high but got {values}; '
                    'give two numbers in order'
                )
        self.size = size
        self.scale = scale[0], scale[1]
        self.ratio = ratio[0], ratio[1]

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Crop and resize; see the base class."""
        height, width = images_BCHW.shape[2:]
        uniform_BA4 = draws.uniform(ATTEMPTS * 4).reshape(len(draws), ATTEMPTS, 4)
        boxes_B4 = random_resized_crop_boxes(uniform_BA4, height, width, self.scale, self.ratio)
        return crop_resize(images_BCHW, upload(boxes_B4, images_BCHW.device), self.size)


@MODELS.register_module()
class BatchRandomFlip(BatchTransform):
    """Mirrors left and right.

    Args:
        prob: Of being mirrored.
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob)

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Mirror; see the base class."""
        return images_BCHW.flip(3)


def _check_whole(caller: str, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f'{caller}: expected {name} to be an integer but got {value!r}; give whole pixels')
