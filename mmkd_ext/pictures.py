"""Image files of any kind as pixels: what a model sees is what a person sees.

Suffixes: H, W pixels.
"""

import os

import numpy as np
from PIL import Image, ImageOps

__all__ = ['UNREADABLE', 'PictureInput', 'as_rgb', 'read_square', 'read_thumbnail', 'shrink']

PictureInput = str | os.PathLike | np.ndarray | Image.Image
"""A file, an open image, or pixels as uint8, grey (height, width) or RGB (height, width, 3)."""

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


def read_square(picture: PictureInput, side: int) -> np.ndarray:
    """Read an image as a person sees it, scale its shorter side to ``side`` and take the central square.

    Args:
        picture: File, open image or pixels.
        side: Pixels.

    Returns:
        (side, side, 3) uint8, RGB.

    Raises:
        OSError: The file is missing, damaged or no image; Pillow has more errors for that, :data:`UNREADABLE`.
    """
    return np.array(ImageOps.fit(_read_upright(picture, side), (side, side), Image.Resampling.BICUBIC))


def read_thumbnail(picture: PictureInput, side: int) -> Image.Image:
    """Read an image as a person sees it, and fit it into a square.

    A small picture is enlarged by a whole factor, so that its pixels stay pixels.

    Args:
        picture: File, open image or pixels.
        side: Width and height of the square in pixels.

    Returns:
        Mode RGB, the longer side at most ``side``.

    Raises:
        OSError: As :func:`read_square`.
    """
    image = _read_upright(picture, side)
    factor = side // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return shrink(image, side)


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Scale an image down, in proportion, until it fits into a square; one that does is not touched."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _read_upright(picture: PictureInput, side: int) -> Image.Image:
    """Read in RGB, turned as the camera says; of a file, no more pixels than two ``side`` need."""
    if isinstance(picture, np.ndarray):
        return as_rgb(Image.fromarray(picture))
    if isinstance(picture, Image.Image):
        return as_rgb(ImageOps.exif_transpose(picture))
    with Image.open(picture) as image:
        image.draft('RGB', (2 * side, 2 * side))  # a JPEG decoder can skip most of a large image
        return as_rgb(ImageOps.exif_transpose(image))
