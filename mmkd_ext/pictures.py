"""Image files of any kind as pixels: what a model sees is what a person sees.

Suffixes: H, W pixels.
"""

import os

import numpy as np
from PIL import Image, ImageOps

__all__ = ['UNREADABLE', 'as_rgb', 'read_square']

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a file that is damaged, missing or no image."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into RGB: transparency on white, more than 8 bits stretched from darkest to brightest.

    Args:
        image: Any mode, palettes, 16 bit and float included.

    Returns:
        Mode RGB, same size.
    """
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        values_HW = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        span = max(float(np.ptp(values_HW)), np.finfo(np.float64).tiny)
        scaled_HW = (values_HW - values_HW.min()) / span * 255
        return Image.fromarray(scaled_HW.round().astype(np.uint8)).convert('RGB')
    if 'A' in image.getbands() or 'transparency' in image.info:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def read_square(picture: str | os.PathLike | Image.Image, side: int) -> np.ndarray:
    """Read an image, turned as its camera says, scale its shorter side to ``side`` and take the central square.

    Args:
        picture: File, or an open image.
        side: Pixels.

    Returns:
        (side, side, 3) uint8, RGB.

    Raises:
        OSError: The file is missing, damaged or no image; Pillow has more errors for that, :data:`UNREADABLE`.
    """
    if not isinstance(picture, Image.Image):
        with Image.open(picture) as image:
            image.draft('RGB', (2 * side, 2 * side))  # a JPEG decoder can skip most of a large image
            return read_square(image, side)
    upright = as_rgb(ImageOps.exif_transpose(picture))
    return np.array(ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC))
