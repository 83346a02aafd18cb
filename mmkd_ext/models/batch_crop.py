"""Crops and flips of a batch, :class:`~mmkd_ext.models.batch_transform.BatchTransform`.

Shape suffixes: B images, C channels, H x W pixels, A attempts at a box.
"""

from collections.abc import Sequence

from torch import Tensor

from mmkd_ext.functional.checks import check_not_negative, check_positive
from mmkd_ext.functional.crop import ATTEMPTS, crop_resize, random_crop_boxes, random_resized_crop_boxes
from mmkd_ext.functional.upload import upload
from mmkd_ext.models.batch_draws import BatchDraws
from mmkd_ext.models.batch_transform import BatchTransform
from mmkd_ext.registry import MODELS

__all__ = ['BatchRandomCrop', 'BatchRandomFlip', 'BatchRandomResizedCrop']


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
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def transform(self, images_BCHW: Tensor, draws: BatchDraws) -> Tensor:
        """Crop and resize; see the base class."""
        uniform_BA4 = draws.uniform(ATTEMPTS * 4).reshape(len(draws), ATTEMPTS, 4)
        boxes_B4 = random_resized_crop_boxes(uniform_BA4, *images_BCHW.shape[2:], self.scale, self.ratio)
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


def _check_whole(who: str, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f'{who}: expected {name} to be an integer but got {value!r}; give whole pixels')
