import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets import omniglot as omniglot_files
from mmkd_ext.datasets.omniglot import ALPHABETS, read_characters

# Alphabets that are sorted neither by name nor by size, as the real ones.
SMALL = {'background': {'Latin': 2, 'Greek': 1}, 'evaluation': {'Tibetan': 1}}
CHARACTERS = [
    ('background', 'Greek', 1),
    ('background', 'Latin', 2),
    ('evaluation', 'Tibetan', 1),
    ('background', 'Latin', 1),
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for part, alphabets in SMALL.items():
        monkeypatch.setitem(ALPHABETS, part, alphabets)


def drawings_of(part):
    count = sum(SMALL[part].values())
    return np.random.default_rng(len(part)).random((count, 20, 105, 105)) < 0.9


def write_arrays(root):
    for part in SMALL:
        np.savez(root / f'images_{part}.npz', images=drawings_of(part), labels=np.arange(3))


def write_folders(root):
    for part, alphabets in SMALL.items():
        drawings = iter(drawings_of(part))
        for alphabet, count in alphabets.items():
            for number in range(1, count + 1):
                folder = root / f'images_{part}' / alphabet / f'character{number:02d}'
                folder.mkdir(parents=True)
                for drawer, drawing in enumerate(next(drawings), 1):
                    Image.fromarray(drawing).save(folder / f'{number:04d}_{drawer:02d}.png')


@pytest.mark.parametrize('write', [write_arrays, write_folders])
def test_both_forms_give_the_characters_asked_for(write, tmp_path):
    write(tmp_path)
    background, evaluation = drawings_of('background'), drawings_of('evaluation')
    expected = [background[2], background[1], evaluation[0], background[0]]
    for actual, wanted in zip(read_characters(tmp_path, CHARACTERS), expected, strict=True):
        assert actual.dtype == bool
        np.testing.assert_array_equal(actual, wanted)


def test_one_part_is_enough_for_its_characters(tmp_path):
    write_arrays(tmp_path)
    (tmp_path / 'images_evaluation.npz').unlink()
    assert len(read_characters(tmp_path, CHARACTERS[:2])) == 2
    expected = (
        r'images_background.npz or .* and images_evaluation.npz or .* but got \[.images_background.npz.\]; unpack'
    )
    with pytest.raises(FileNotFoundError, match=expected):
        read_characters(tmp_path, CHARACTERS)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected in .*nowhere .* but got no such folder; unpack'):
        read_characters(tmp_path / 'nowhere', CHARACTERS)


def test_an_array_of_another_data_set(tmp_path):
    np.savez(tmp_path / 'images_evaluation.npz', images=np.zeros((2, 20, 105, 105), bool))
    with pytest.raises(
        ValueError, match=r'expected images of shape \(1, 20, 105, 105\) .* but got \(2, 20, 105, 105\)'
    ):
        read_characters(tmp_path, CHARACTERS[2:3])


def test_a_missing_drawing(tmp_path):
    write_folders(tmp_path)
    (tmp_path / 'images_background/Greek/character01/0001_07.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'expected 20 drawings .*Greek/character01 but got 19; unpack'):
        read_characters(tmp_path, CHARACTERS)


def test_a_drawing_of_another_size(tmp_path):
    write_folders(tmp_path)
    path = tmp_path / 'images_background/Greek/character01/0001_07.png'
    Image.new('1', (28, 28)).save(path)
    with pytest.raises(ValueError, match=r'expected 105 x 105 pixels in .*0001_07.png but got shape \(28, 28\)'):
        read_characters(tmp_path, CHARACTERS)


def test_numbers_of_the_original():
    counts = {part: list(alphabets.values()) for part, alphabets in ORIGINAL.items()}
    assert {part: (len(count), sum(count)) for part, count in counts.items()} == {
        'background': (30, 964),
        'evaluation': (20, 659),
    }


ORIGINAL = {part: dict(alphabets) for part, alphabets in omniglot_files.ALPHABETS.items()}
