"""Image files of any kind as pixels: what a model sees is what a person sees.

Values of more than 8 bits are stretched between two of them, which are not the extremes: a single dead or hot pixel
would leave a few greys for all others. Over a set of images these two should be the same for all, so that one that is
brighter than another stays so: :func:`value_span` of each, :func:`common_range` of all, and ``value_range`` wherever an
image is read.

Suffixes: H, W pixels.
"""

import functools
import importlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = [
    'UNREADABLE',
    'PictureInput',
    'ValueRange',
    'as_rgb',
    'common_range',
    'image_suffixes',
    'open_image',
    'other_kind',
    'read_square',
    'read_thumbnail',
    'shrink',
    'value_span',
]

PictureInput = str | os.PathLike | np.ndarray | Image.Image
"""A file, an open image, or pixels as uint8, grey (height, width) or RGB (height, width, 3)."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a file that is damaged, missing or no image."""


ValueRange = Mapping[str, Sequence[float]]
"""``{'int': [low, high], 'float': [low, high]}``, or one of both, what becomes black and what white where images have
more than 8 bits."""

_TAIL = 0.005
"""Share of the pixels at each end that do not count for a range, and share of the images of a set."""
_MIN_PIXELS = 64
"""Of fewer pixels each counts."""


def as_rgb(image: Image.Image, value_range: ValueRange | None = None) -> Image.Image:
    """Turn an image of any mode into RGB: transparency on white, more than 8 bits stretched and cut off at the ends.

    Args:
        image: Any mode, palettes, 16 bit and float included.
        value_range: What is black and white in a set of images; that of the image itself where it is not given.

    Returns:
        Mode RGB, same size.
    """
    kind = _deep_kind(image)
    if kind is not None:
        values_HW = _deep_values(image)
        low, high = (value_range or {}).get(kind) or _span(values_HW)
        scaled_HW = (values_HW - low) / max(high - low, np.finfo(np.float64).tiny) * 255
        return Image.fromarray(scaled_HW.clip(0, 255).round().astype(np.uint8)).convert('RGB')
    if 'A' in image.getbands() or 'transparency' in image.info:
        image = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def value_span(image: Image.Image) -> tuple[str, float, float] | None:
    """Find between which values an image of more than 8 bits lies.

    Args:
        image: Any mode.

    Returns:
        ``'int'`` or ``'float'``, and a low and a high value: those that half a percent of the pixels, one at the least,
        lie beyond. Extremes where an image has fewer than 64 pixels, or next to nothing but one value. ``None`` for an
        image of 8 bits.
    """
    kind = _deep_kind(image)
    return None if kind is None else (kind, *_span(_deep_values(image)))


def common_range(spans: Iterable[tuple[str, float, float] | None]) -> dict[str, list[float]]:
    """Join the spans of the images of a set.

    Args:
        spans: From :func:`value_span`.

    Returns:
        A :data:`ValueRange`: of each kind the lowest and the highest value, without the images, half a percent of
        them and from ten on one at the least, that reach furthest at that end.
    """
    found = [span for span in spans if span is not None]
    ranges = {}
    for kind in sorted({kind for kind, _, _ in found}):
        low_N, high_N = (np.sort([span[end] for span in found if span[0] == kind]) for end in (1, 2))
        dropped = math.ceil(_TAIL * len(low_N)) if len(low_N) >= 10 else 0
        low, high = float(low_N[dropped]), float(high_N[-1 - dropped])
        ranges[kind] = [low, high] if low < high else [float(low_N[0]), float(high_N[-1])]
    return ranges


def _deep_kind(image: Image.Image) -> str | None:
    """Kind of the values of an image of more than 8 bits."""
    if image.mode == 'F':
        return 'float'
    return 'int' if image.mode == 'I' or image.mode.startswith('I;16') else None


def _deep_values(image: Image.Image) -> np.ndarray:
    """Values as (H, W) float64, 0 where they are not finite."""
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)


def _span(values_HW: np.ndarray) -> tuple[float, float]:
    dropped = math.ceil(_TAIL * values_HW.size) if values_HW.size >= _MIN_PIXELS else 0
    sorted_P = np.partition(values_HW, (0, dropped, -1 - dropped, -1), axis=None)
    low, high = float(sorted_P[dropped]), float(sorted_P[-1 - dropped])
    return (low, high) if low < high else (float(sorted_P[0]), float(sorted_P[-1]))


# --------------------------------------------------------------------------------------------------
# Which files are images.

_PLUGINS = {
    'pillow_heif': ('pillow-heif', ('.heic', '.heif', '.hif')),
    'pillow_avif': ('pillow-avif-plugin', ('.avif', '.avifs')),
    'pillow_jxl': ('pillow-jxl-plugin', ('.jxl',)),
}
"""Modules that teach Pillow a format: name of the package, suffixes of the files."""

_NO_PICTURES = {'BUFR', 'EPS', 'FPX', 'GRIB', 'HDF5', 'MPEG', 'WMF'}
"""Formats of which Pillow knows the name, but not the pixels; EPS is a program that another one would run."""

_BRANDS = {b'avif': '.avif', b'avis': '.avif', b'qt  ': '.mov'} | dict.fromkeys(
    (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'), '.heic'
)
_OTHER_KINDS = {
    'a camera raw file; export it as JPEG or TIFF': '.3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mef .mos .mrw .nef '
    '.nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f',
    'a video; export frames of it': '.3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv',
    'a drawing, not pixels; export it as PNG': '.ai .emf .eps .ps .svg .svgz .wmf',
    'a document, not an image': '.doc .docx .htm .html .pdf .ppt .pptx .xls .xlsx',
    'text or data, not an image': '.cfg .css .csv .db .h5 .hdf5 .ini .js .json .log .mat .md .npy .npz .parquet .pkl '
    '.pt .pth .py .rtf .toml .tsv .txt .xml .xmp .yaml .yml',
    'an archive; unpack it': '.7z .bz2 .gz .rar .tar .tgz .xz .zip',
}
_REASONS = {suffix: reason for reason, suffixes in _OTHER_KINDS.items() for suffix in suffixes.split()}


@functools.cache
def _formats() -> tuple[str, ...]:
    """Load all of Pillow's plugins, those that are installed beside it too, and return the formats with pixels."""
    Image.init()
    for name in _PLUGINS:
        try:
            plugin = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(plugin, 'register_heif_opener'):  # the others register on import
            plugin.register_heif_opener()
    return tuple(name for name in Image.OPEN if name not in _NO_PICTURES)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, lower case with a dot, of the files that can be read on this machine."""
    formats = set(_formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def open_image(path: str | os.PathLike) -> Image.Image:
    """Open an image by its content, whatever its name is; what cannot be read says what would help.

    Args:
        path: The file.

    Raises:
        UnidentifiedImageError: It is no image that can be read here.
        OSError: The file is missing or damaged; Pillow has more errors for that, :data:`UNREADABLE`.
    """
    try:
        return Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        raise UnidentifiedImageError(_what_it_is(path)) from None


def other_kind(path: str | os.PathLike) -> str | None:
    """Return what a file is by its suffix, and what to do about it, if it is known to be no image; else ``None``."""
    suffix = os.path.splitext(path)[1].lower()
    return None if suffix in image_suffixes() else _REASONS.get(suffix) or _missing_plugin(suffix)


def _missing_plugin(suffix: str) -> str | None:
    for package, suffixes in _PLUGINS.values():
        if suffix in suffixes and suffix not in image_suffixes():
            return f'{suffix[1:].upper()} takes one more package; run `pip install {package}`'
    return None


def _what_it_is(path: str | os.PathLike) -> str:
    """What the first bytes of a file tell that is no image."""
    with open(path, 'rb') as file:
        start = file.read(64)
    if not start:
        return 'an empty file'
    if start[4:8] == b'ftyp':
        suffix = _BRANDS.get(start[8:12], '.mp4')
        return _missing_plugin(suffix) or _REASONS.get(suffix, 'damaged')
    if start.lstrip()[:14].lower().startswith((b'<!doctype html', b'<html')):
        return 'a web page, not an image; download it again'
    if start.startswith(b'version https://git-lfs'):
        return 'a pointer of Git LFS; run `git lfs pull`'
    return 'no image that Pillow can read'


# --------------------------------------------------------------------------------------------------
# Reading.


def read_square(picture: PictureInput, side: int, value_range: ValueRange | None = None) -> np.ndarray:
    """Read an image as a person sees it, scale its shorter side to ``side`` and take the central square.

    Args:
        picture: File, open image or pixels.
        side: Pixels.
        value_range: As of :func:`as_rgb`.

    Returns:
        (side, side, 3) uint8, RGB.

    Raises:
        OSError: The file is missing, damaged or no image; Pillow has more errors for that, :data:`UNREADABLE`.
    """
    return np.array(ImageOps.fit(_read_upright(picture, side, value_range), (side, side), Image.Resampling.BICUBIC))


def read_thumbnail(picture: PictureInput, side: int, value_range: ValueRange | None = None) -> Image.Image:
    """Read an image as a person sees it, and fit it into a square.

    A small picture is enlarged by a whole factor, so that its pixels stay pixels.

    Args:
        picture: File, open image or pixels.
        side: Width and height of the square in pixels.
        value_range: As of :func:`as_rgb`.

    Returns:
        Mode RGB, the longer side at most ``side``.

    Raises:
        OSError: As :func:`read_square`.
    """
    image = _read_upright(picture, side, value_range)
    factor = side // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return shrink(image, side)


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Scale an image down, in proportion, until it fits into a square; one that does is not touched."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _read_upright(picture: PictureInput, side: int, value_range: ValueRange | None) -> Image.Image:
    """Read in RGB, turned as the camera says; of a file, no more pixels than two ``side`` need."""
    if isinstance(picture, np.ndarray):
        return as_rgb(Image.fromarray(picture), value_range)
    if isinstance(picture, Image.Image):
        return as_rgb(ImageOps.exif_transpose(picture), value_range)
    with open_image(picture) as image:
        image.draft('RGB', (2 * side, 2 * side))  # a JPEG decoder can skip most of a large image
        return as_rgb(ImageOps.exif_transpose(image), value_range)
