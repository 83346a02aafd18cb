"""Omniglot in both forms, its splits and its files."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets import Omniglot
from mmkd_ext.datasets.omniglot import ALPHABETS, read_characters

# --------------------------------------------------------------------------------------------------
# Data set.


# SHA-256 of the sorted lines of the split files that come with Prototypical Networks.
PUBLISHED = {
    'train': (4112, '2c896cd81ce6e265cb77cf6b6639f5413bb98cf6396cfb69e79bf3ae783f2e26'),
    'val': (688, 'aa90019d0f1878f34cd74856b44f307944e08b7408d636baebccd94ba852d517'),
    'trainval': (4800, '62d34cdcc485031005c531bd2a8f0dd8fcd177974311773eab1b29614501583c'),
    'test': (1692, '871120bc00230686b507e366092d9f804988354e61d5405c4008e002223f2bcc'),
}


def classes_of(split, **kwargs):
    return Omniglot('nowhere', split, lazy_init=True, **kwargs).metainfo['classes']


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two characters to train and one to test with, whose ink is a quarter of the image: top left, and so on."""
    monkeypatch.setitem(ALPHABETS, 'background', {'Latin': 1, 'Hebrew': 1})
    monkeypatch.setitem(ALPHABETS, 'evaluation', {'Tibetan': 1})
    for part, count in {'background': 2, 'evaluation': 1}.items():
        images = np.ones((count, 20, 105, 105), dtype=bool)
        images[:, :, :52, :52] = False
        np.savez(tmp_path / f'images_{part}.npz', images=images)
    return str(tmp_path)


def test_vinyals_split_is_the_published_one():
    for split, published in PUBLISHED.items():
        names = sorted(classes_of(split, rotations=True))
        assert (len(names), hashlib.sha256('\n'.join(names).encode()).hexdigest()) == published


def test_original_split():
    background, evaluation = classes_of('background'), classes_of('evaluation')
    assert (len(background), len(evaluation)) == (964, 659)
    assert not {name.split('/')[0] for name in background} & {name.split('/')[0] for name in evaluation}
    assert background[:2] == ('Alphabet_of_the_Magi/character01', 'Alphabet_of_the_Magi/character02')


def test_rotations_are_classes_turned_counter_clockwise(root):
    dataset = Omniglot(root, 'test', rotations=True)
    assert dataset.metainfo['classes'] == tuple(
        f'Tibetan/character01/rot{degrees}' for degrees in ('000', '090', '180', '270')
    )
    np.testing.assert_array_equal(dataset.get_gt_labels(), np.repeat([0, 1, 2, 3], 20))
    corners = {'top left': (5, 5), 'bottom left': (22, 5), 'bottom right': (22, 22), 'top right': (5, 22)}
    for label, ink in enumerate(corners):
        image = dataset[20 * label + 7]['img']
        assert {corner for corner, place in corners.items() if image[place] == 255} == {ink}
        assert {corner for corner, place in corners.items() if image[place] == 0} == set(corners) - {ink}


def test_images_and_labels(root):
    train = Omniglot(root, 'background', image_size=35)
    assert train.metainfo['classes'] == ('Hebrew/character01', 'Latin/character01')
    assert len(train) == 40
    assert train[0]['img'].shape == (35, 35)
    assert train[0]['img'].dtype == np.uint8
    assert train.get_cat_ids(39) == [1]


def test_splits_share_no_class(root):
    names = {split: set(Omniglot(root, split, rotations=True).metainfo['classes']) for split in PUBLISHED}
    assert names['train'] | names['val'] == names['trainval']
    assert not names['trainval'] & names['test']


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"Omniglot: expected split in \('train', .*\) but got 'training'"):
        Omniglot('nowhere', 'training')
    with pytest.raises(ValueError, match='Omniglot: expected image_size >= 1 but got 0'):
        Omniglot('nowhere', 'train', image_size=0)
    with pytest.raises(FileNotFoundError, match=r'Omniglot: expected in .*nowhere images_background'):
        Omniglot('nowhere', 'background')


# --------------------------------------------------------------------------------------------------
# Files, of which there are few here.


# Alphabets that are sorted neither by name nor by size, as the real ones.
SMALL = {'background': {'Latin': 2, 'Greek': 1}, 'evaluation': {'Tibetan': 1}}
CHARACTERS = [
    ('background', 'Greek', 1),
    ('background', 'Latin', 2),
    ('evaluation', 'Tibetan', 1),
    ('background', 'Latin', 1),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    for part, alphabets in SMALL.items():
        monkeypatch.setitem(ALPHABETS, part, alphabets)
    return tmp_path


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
def test_both_forms_give_the_characters_asked_for(write, place):
    write(place)
    background, evaluation = drawings_of('background'), drawings_of('evaluation')
    expected = [background[2], background[1], evaluation[0], background[0]]
    for actual, wanted in zip(read_characters(place, CHARACTERS), expected, strict=True):
        assert actual.dtype == bool
        np.testing.assert_array_equal(actual, wanted)


def test_one_part_is_enough_for_its_characters(place):
    write_arrays(place)
    (place / 'images_evaluation.npz').unlink()
    assert len(read_characters(place, CHARACTERS[:2])) == 2
    expected = (
        r'images_background.npz or .* and images_evaluation.npz or .* but got \[.images_background.npz.\]; unpack'
    )
    with pytest.raises(FileNotFoundError, match=expected):
        read_characters(place, CHARACTERS)


def test_no_folder(place):
    with pytest.raises(FileNotFoundError, match=r'expected in .*nowhere .* but got no such folder; unpack'):
        read_characters(place / 'nowhere', CHARACTERS)


def test_an_array_of_another_data_set(place):
    np.savez(place / 'images_evaluation.npz', images=np.zeros((2, 20, 105, 105), bool))
    with pytest.raises(
        ValueError, match=r'expected images of shape \(1, 20, 105, 105\) .* but got \(2, 20, 105, 105\)'
    ):
        read_characters(place, CHARACTERS[2:3])


def test_a_missing_drawing(place):
    write_folders(place)
    (place / 'images_background/Greek/character01/0001_07.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'expected 20 drawings .*Greek/character01 but got 19; unpack'):
        read_characters(place, CHARACTERS)


def test_a_drawing_of_another_size(place):
    write_folders(place)
    path = place / 'images_background/Greek/character01/0001_07.png'
    Image.new('1', (28, 28)).save(path)
    with pytest.raises(ValueError, match=r'expected 105 x 105 pixels in .*0001_07.png but got shape \(28, 28\)'):
        read_characters(place, CHARACTERS)


def test_numbers_of_the_original():
    counts = {part: (len(alphabets), sum(alphabets.values())) for part, alphabets in ALPHABETS.items()}
    assert counts == {'background': (30, 964), 'evaluation': (20, 659)}
