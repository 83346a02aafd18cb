"""Images of every mode become what a person sees."""

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.pictures import UNREADABLE, as_rgb, read_square


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I', 'F', 'I;16'])
def test_every_mode_becomes_rgb(mode):
    image = as_rgb(Image.new(mode, (3, 2)))
    assert (image.mode, image.size) == ('RGB', (3, 2))


def test_sixteen_bits_are_stretched_from_darkest_to_brightest():
    image = Image.fromarray(np.array([[1000, 1500], [2000, 3000]], dtype=np.uint16))
    assert np.asarray(as_rgb(image))[..., 0].tolist() == [[0, 64], [128, 255]]


@pytest.mark.parametrize('value', [0, 7, 65535])
def test_one_grey_of_sixteen_bits_is_black(value):
    assert not np.asarray(as_rgb(Image.fromarray(np.full((2, 2), value, dtype=np.uint16)))).any()


def test_transparent_pixels_are_white():
    image = Image.new('RGBA', (1, 1), (10, 20, 30, 0))
    assert as_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_entry_of_a_palette_is_white(tmp_path):
    image = Image.new('P', (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / 'x.png', transparency=0)
    with Image.open(tmp_path / 'x.png') as image:
        assert np.asarray(as_rgb(image)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_camera_rotation_is_undone(tmp_path):
    upright = Image.fromarray(np.repeat(np.array([[0, 255]], dtype=np.uint8), 2, axis=0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'x.png', exif=exif)
    assert read_square(tmp_path / 'x.png', 2)[..., 0].tolist() == [[0, 255], [0, 255]]


def test_the_central_square_counts():
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 200
    square = read_square(Image.fromarray(wide), 4)
    assert square.shape == (4, 4, 3)
    assert (square == 200).all()


def test_a_small_image_of_the_right_size_keeps_its_pixels():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(read_square(Image.fromarray(pixels), 8)[..., 1], pixels)


@pytest.mark.parametrize('content', [b'', b'no image', b'\x89PNG\r\n\x1a\n' + b'0' * 50])
def test_damaged_files_raise_what_is_announced(tmp_path, content):
    (tmp_path / 'x.png').write_bytes(content)
    with pytest.raises(UNREADABLE):
        read_square(tmp_path / 'x.png', 8)
