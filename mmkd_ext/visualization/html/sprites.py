"""Thumbnails of thousands of images, packed into a few pictures that a browser decodes when they come into view."""

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from mmkd_ext.pictures import UNREADABLE, as_rgb
from mmkd_ext.visualization.html.result import Picture

__all__ = ['COLUMNS', 'Sprites', 'pack_sprites', 'read_picture', 'thumbnail_side']

COLUMNS = 8
"""Columns, and rows, of a sheet."""

_MAX_SIDE = 128
_MAX_PIXELS = 10_000 * 64 * 64
"""Of all thumbnails together: at most 40 MB as base64 at the three bytes per four pixels that pure noise takes."""

_QUALITY = 80


@dataclass(frozen=True)
class Sprites:
    """Packed thumbnails.

    Attributes:
        side: Width and height of a cell in pixels.
        sheets: WebP pictures of 8 x 8 cells each, row by row, the last one possibly with empty cells.
        sizes: Width and height of each thumbnail in the upper left corner of its cell, int, (images, 2); 0, 0 if its
            picture could not be read.
    """

    side: int
    sheets: list[bytes]
    sizes: np.ndarray


def thumbnail_side(num_images: int) -> int:
    """Return the side of a thumbnail in pixels: 128, and less for more than 2,500 images, so that the file stays small.

    Args:
        num_images: Number of images, >= 0.

    Returns:
        int: 64 for 10,000 images, 32 for 40,000.
    """
    return min(_MAX_SIDE, max(1, math.isqrt(_MAX_PIXELS // max(num_images, 1))))


def read_picture(picture: Picture, side: int) -> Image.Image:
    """Read a picture as a person would see it, and fit it into a square.

    Rotated as its camera says, transparency on white, more than 8 bits stretched from darkest to brightest. A small
    picture is enlarged by a whole factor, so that its pixels stay pixels.

    Args:
        picture: File or pixels.
        side: Width and height of the square in pixels.

    Returns:
        Image.Image: RGB, the longer side at most ``side``.

    Raises:
        OSError: The file is missing, damaged or no image; Pillow also raises ValueError, SyntaxError, EOFError and
            DecompressionBombError.
    """
    if isinstance(picture, np.ndarray):
        return _fit(as_rgb(Image.fromarray(picture)), side)
    with Image.open(picture) as image:
        image.draft('RGB', (2 * side, 2 * side))  # a JPEG decoder can skip most of a large image
        return _fit(as_rgb(ImageOps.exif_transpose(image)), side)


def _fit(image: Image.Image, side: int) -> Image.Image:
    factor = side // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _pack_sheet(pictures: Sequence[Picture], side: int) -> tuple[bytes, list[tuple[int, int]]]:
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new('RGB', (COLUMNS * side, rows * side))
    sizes = []
    for cell, picture in enumerate(pictures):
        try:
            image = read_picture(picture, side)
        except UNREADABLE:
            sizes.append((0, 0))
            continue
        sheet.paste(image, (cell % COLUMNS * side, cell // COLUMNS * side))
        sizes.append(image.size)
    buffer = io.BytesIO()
    sheet.save(buffer, 'WEBP', quality=_QUALITY)
    return buffer.getvalue(), sizes


def pack_sprites(pictures: Sequence[Picture]) -> Sprites:
    """Read all pictures and pack their thumbnails in this order.

    Args:
        pictures: Files or pixels. Neighbours share a sheet, so pictures that are seen together should be neighbours.

    Returns:
        Sprites: The same bytes for the same pictures.
    """
    side = thumbnail_side(len(pictures))
    groups = [pictures[start : start + COLUMNS**2] for start in range(0, len(pictures), COLUMNS**2)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        packed = list(pool.map(lambda group: _pack_sheet(group, side), groups))
    sizes = [size for _, group_sizes in packed for size in group_sizes]
    return Sprites(side, [sheet for sheet, _ in packed], np.array(sizes, dtype=np.int64).reshape(-1, 2))
