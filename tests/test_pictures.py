"""Images of every mode become what a person sees."""

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.pictures import UNREADABLE, as_rgb, common_range, read_square, read_thumbnail, value_span


def test_every_mode_becomes_rgb(tmp_path):
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I', 'F', 'I;16'):
        empty = as_rgb(Image.new(mode, (3, 2)))
        assert (empty.mode, empty.size) == ('RGB', (3, 2)), mode
        image = ramp.convert('I').convert(mode) if mode == 'I;16' else ramp.convert(mode)
        image.save(tmp_path / 'image.tiff')
        picture = read_thumbnail(tmp_path / 'image.tiff', 32)
        assert (picture.mode, picture.size) == ('RGB', (32, 32)), mode
        values = np.asarray(picture, dtype=float)[16, :, 0]
        assert values[0] < 20, mode
        assert values[-1] > 235, mode


def test_sixteen_bits_are_stretched_from_darkest_to_brightest():
    for values in ([[1000, 1500], [2000, 3000]], [[0, 1024], [2048, 4096]]):
        image = Image.fromarray(np.array(values, dtype=np.uint16))
        assert np.asarray(as_rgb(image))[..., 0].tolist() == [[0, 64], [128, 255]]
    for value in (0, 7, 65535):  # one grey alone is black
        assert not np.asarray(as_rgb(Image.fromarray(np.full((2, 2), value, dtype=np.uint16)))).any()


def test_transparent_pixels_are_white(tmp_path):
    assert as_rgb(Image.new('RGBA', (1, 1), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)
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
    with Image.open(tmp_path / 'x.png') as opened:
        for pixels in (
            read_square(tmp_path / 'x.png', 2),
            read_square(opened, 2),
            np.asarray(read_thumbnail(tmp_path / 'x.png', 2)),
        ):
            assert pixels[..., 0].tolist() == [[0, 255], [0, 255]]


def test_a_square_is_cut_from_the_middle():
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 200
    for picture in (wide, np.repeat(wide[..., None], 3, axis=2), Image.fromarray(wide)):
        square = read_square(picture, 4)
        assert square.shape == (4, 4, 3)
        assert (square == 200).all()
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(read_square(pixels, 8)[..., 1], pixels)


def test_thumbnails_are_enlarged_by_a_whole_factor_and_made_small_in_proportion(tmp_path):
    pixels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(read_thumbnail(pixels, 7))[..., 0], np.kron(pixels, np.ones((3, 3))))
    assert read_thumbnail(np.zeros((1000, 10), dtype=np.uint8), 64).size == (1, 64)
    Image.fromarray(np.zeros((200, 400), dtype=np.uint8)).save(tmp_path / 'x.jpg')
    assert read_thumbnail(tmp_path / 'x.jpg', 40).size == (40, 20)


def test_damaged_files_raise_what_is_announced(tmp_path):
    for content in (b'', b'no image', b'\x89PNG\r\n\x1a\n' + b'0' * 50):
        (tmp_path / 'x.png').write_bytes(content)
        for read in (read_square, read_thumbnail):
            with pytest.raises(UNREADABLE):
                read(tmp_path / 'x.png', 8)


@pytest.mark.parametrize('mode', ['uint16', 'int32', 'float32'])
@pytest.mark.parametrize('side', [8, 28, 200])
def test_an_outlier_does_not_matter(mode, side):
    """One hot and one dead pixel leave the greys of all others as they were, within two of 255."""
    values = np.random.default_rng(0).permutation(np.linspace(1000, 3000, side * side)).reshape(side, side)
    clean, spoilt = values.astype(mode), values.astype(mode)
    spoilt[0, 0], spoilt[side - 1, 0] = 65535, 0
    greys = [np.asarray(as_rgb(Image.fromarray(pixels)), dtype=int)[..., 0] for pixels in (clean, spoilt)]
    inner = (slice(1, side - 1), slice(1, side))
    tolerance = 2 if side > 8 else 8  # two of 64 pixels were the range
    assert np.abs(greys[0] - greys[1])[inner].max() <= tolerance
    assert len(np.unique(greys[1])) > 0.9 * min(side * side, 250)


def test_a_common_range_keeps_brightness_and_leaves_out_odd_images():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(1000, top, (20, 20)).astype(np.uint16)) for top in [2000, 3000] * 10]
    images.append(Image.fromarray(np.full((20, 20), 65000, dtype=np.uint16)))
    found = common_range([*map(value_span, images), value_span(Image.new('L', (4, 4)))])
    assert found.keys() == {'int'}
    assert 1000 <= found['int'][0] < 1050
    assert 2900 < found['int'][1] < 3000
    dark, bright = (np.asarray(as_rgb(image, found)).mean() for image in images[:2])
    assert bright > 1.8 * dark
    assert np.asarray(as_rgb(images[-1], found)).min() == 255
    assert common_range([None, None]) == {}


def test_sparse_bright_pixels_are_no_outliers_where_they_are_all_there_is():
    pixels = np.zeros((100, 100), dtype=np.uint16)
    pixels[:2, :5] = 900  # a tenth of a percent
    assert np.asarray(as_rgb(Image.fromarray(pixels)))[0, 0].tolist() == [255] * 3


def test_content_decides_and_no_program_is_run(tmp_path):
    Image.new('RGB', (4, 4), 'red').save(tmp_path / 'photo.txt', 'JPEG')
    assert read_square(tmp_path / 'photo.txt', 2).shape == (2, 2, 3)
    Image.new('RGB', (4, 4), 'red').save(tmp_path / 'program.jpg', 'EPS')
    with pytest.raises(UNREADABLE, match='no image that Pillow can read'):
        read_square(tmp_path / 'program.jpg', 2)
