import io

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.visualization.html import sprites
from mmkd_ext.visualization.html.sprites import COLUMNS, pack_sprites, read_picture, thumbnail_side


def saved(tmp_path, image, name='image.png', **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def cut(packed, index):
    """The thumbnail as a page cuts it out."""
    sheet = Image.open(io.BytesIO(packed.sheets[index // COLUMNS**2])).convert('RGB')
    cell = index % COLUMNS**2
    x, y = cell % COLUMNS * packed.side, cell // COLUMNS * packed.side
    width, height = packed.sizes[index].tolist()
    return np.asarray(sheet.crop((x, y, x + width, y + height)), dtype=float)


def test_each_picture_is_found_in_its_cell():
    colours = np.random.default_rng(0).integers(0, 256, (150, 3), dtype=np.uint8)
    packed = pack_sprites(list(np.broadcast_to(colours[:, None, None], (150, 20, 10, 3))))
    assert len(packed.sheets) == 3
    assert packed.sizes.tolist() == [[60, 120]] * 150  # six times 10 x 20, the most that fits into 128
    for index in (0, 7, 8, 63, 64, 149):
        np.testing.assert_allclose(cut(packed, index).mean(axis=(0, 1)), colours[index], atol=6)


def test_a_broken_picture_leaves_an_empty_cell_and_no_other_is_touched(tmp_path):
    good = np.full((8, 8), 200, dtype=np.uint8)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8)).save(tmp_path / 'whole.jpg')
    (tmp_path / 'cut.jpg').write_bytes((tmp_path / 'whole.jpg').read_bytes()[:900])
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty.gif').write_bytes(b'')
    broken = [tmp_path / name for name in ('cut.jpg', 'text.png', 'empty.gif', 'missing.png', '')]
    packed = pack_sprites([good, *broken, good])
    assert packed.sizes.tolist() == [[128, 128], *[[0, 0]] * 5, [128, 128]]
    np.testing.assert_allclose(cut(packed, 6), 200, atol=3)


def test_the_same_pictures_give_the_same_bytes():
    pictures = list(np.random.default_rng(0).integers(0, 256, (100, 30, 30, 3), dtype=np.uint8))
    assert pack_sprites(pictures).sheets == pack_sprites(pictures).sheets


def test_ten_thousand_pictures_of_noise_stay_below_the_bar(monkeypatch):
    """Nothing compresses worse than noise: 60 MB for 10,000, of which base64 takes a third."""
    monkeypatch.setattr(sprites, 'thumbnail_side', lambda _: thumbnail_side(10_000))
    packed = pack_sprites(list(np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)))
    assert packed.side == 64
    assert len(packed.sheets[0]) / 64 * 10_000 * 4 / 3 < 50e6


@pytest.mark.parametrize(('num_images', 'side'), [(0, 128), (1, 128), (2500, 128), (10_000, 64), (40_000, 32)])
def test_side(num_images, side):
    assert thumbnail_side(num_images) == side


def test_nothing_to_pack():
    packed = pack_sprites([])
    assert (packed.sheets, packed.sizes.shape) == ([], (0, 2))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16', 'I', 'F'])
def test_every_mode_becomes_rgb(tmp_path, mode):
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    image = ramp.convert('I').convert(mode) if mode == 'I;16' else ramp.convert(mode)
    picture = read_picture(saved(tmp_path, image, 'image.tiff'), 32)
    assert (picture.mode, picture.size) == ('RGB', (32, 32))
    values = np.asarray(picture, dtype=float)[16, :, 0]
    assert values[0] < 20
    assert values[-1] > 235


def test_sixteen_bits_are_stretched_and_a_constant_is_no_error(tmp_path):
    twelve_bit = np.array([[0, 1024], [2048, 4095]], dtype=np.uint16)
    picture = read_picture(saved(tmp_path, Image.fromarray(twelve_bit)), 2)
    assert np.asarray(picture)[..., 0].tolist() == [[0, 64], [128, 255]]
    constant = read_picture(saved(tmp_path, Image.fromarray(np.full((2, 2), 500, dtype=np.uint16))), 2)
    assert np.asarray(constant).max() == 0


def test_transparency_is_on_white(tmp_path):
    image = Image.new('RGBA', (4, 4), (255, 0, 0, 0))
    assert read_picture(saved(tmp_path, image), 4).getpixel((0, 0)) == (255, 255, 255)


def test_the_camera_says_how_to_rotate(tmp_path):
    image = Image.new('RGB', (40, 20), 'black')
    image.paste('white', (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: left becomes top
    picture = read_picture(saved(tmp_path, image, 'image.jpg', exif=exif), 40)
    assert picture.size == (20, 40)
    assert picture.getpixel((10, 5))[0] > 240
    assert picture.getpixel((10, 35))[0] < 15


def test_small_pictures_are_enlarged_by_a_whole_factor_and_large_ones_made_small():
    pixels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(read_picture(pixels, 7))[..., 0], np.kron(pixels, np.ones((3, 3))))
    assert read_picture(np.zeros((1000, 10), dtype=np.uint8), 64).size == (1, 64)
