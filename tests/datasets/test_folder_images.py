"""Images in folders, and the list that is made of them."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets import ListedImages
from mmkd_ext.datasets.folder_images import find_images, scan

# --------------------------------------------------------------------------------------------------
# Folder images.


def _image(path, size=(8, 8), colour=90):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new('RGB' if isinstance(colour, tuple) else 'L', size, colour).save(path, 'PNG')


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('known/dog/1.png', 'known/dog/deep/er/2.png', 'known/cat/3.PNG', 'other/b.png', 'other/a/z.png'):
        _image(name)
    return tmp_path


def test_folders_are_classes_and_names_are_sorted(photos):
    images = scan('known', 'other')
    assert images.classes == ['cat', 'dog']
    assert images.paths == [
        'known/cat/3.PNG',
        'known/dog/1.png',
        'known/dog/deep/er/2.png',
        'other/b.png',
        'other/a/z.png',
    ]
    assert images.labels == [0, 1, 1, -1, -1]
    assert images.broken == []


def test_other_and_hidden_files_do_not_count(photos):
    for name in ('other/notes.txt', 'other/.hidden.png', 'other/.thumbs/x.png', 'known/x.png'):
        _image(name)
    assert len(scan('known', 'other').paths) == 5


def test_labelled_images_within_the_unlabelled_folder_count_once(photos):
    images = scan('known', '.')
    assert sorted(images.labels) == [-1, -1, 0, 1, 1]


def test_broken_files_are_listed_with_a_reason(photos):
    good = (photos / 'other/b.png').read_bytes()
    (photos / 'other/empty.png').write_bytes(b'')
    (photos / 'other/text.jpg').write_bytes(b'no image')
    (photos / 'other/cut.png').write_bytes(good[: len(good) // 2])
    os.symlink('nowhere', 'other/link.png')
    images = scan('known', 'other')
    assert sorted(path for path, _ in images.broken) == [
        f'other/{x}' for x in ('cut.png', 'empty.png', 'link.png', 'text.jpg')
    ]
    assert all(reason and 'other/' not in reason for _, reason in images.broken)
    assert len(images.paths) == 5


@pytest.mark.parametrize(
    'name', ['a b.png', 'quo\'te".png', '<img src=x onerror=alert(1)>.png', 'ünï 文.png', os.fsdecode(b'\xff\xfe.png')]
)
def test_names_come_back_as_they_are(photos, name):
    _image(f'other/{name}')
    assert f'other/{name}' in scan('known', 'other').paths


def test_csv_files_name_images_beside_them(photos):
    (photos / 'known.csv').write_text('label,path\ncat,known/cat/3.PNG\n"do,g",known/dog/1.png\n', encoding='utf-8-sig')
    (photos / 'other.csv').write_text('path\nother/b.png\n')
    folder = photos / 'elsewhere'
    folder.mkdir()
    os.chdir(folder)
    images = scan('../known.csv', '../other.csv')
    assert images.classes == ['cat', 'do,g']
    assert images.paths == ['../known/cat/3.PNG', '../known/dog/1.png', '../other/b.png']


def test_grey_images_are_told_from_coloured_ones(photos):
    assert scan('known', 'other').are_grey
    _image('other/colour.png', colour=(200, 20, 20))
    assert not scan('known', 'other').are_grey


def test_short_sides(photos):
    _image('other/wide.png', size=(30, 10))
    assert sorted(scan('known', 'other').short_sides) == [8] * 5 + [10]


@pytest.mark.parametrize(
    ('labelled', 'unlabelled', 'error', 'match'),
    [
        ('nowhere', 'other', FileNotFoundError, 'labelled images but found none at nowhere'),
        ('known', 'nowhere', FileNotFoundError, 'unlabelled images but found none at nowhere'),
        ('known', 'known', ValueError, 'expected unlabelled images in known'),
        ('other', 'known', ValueError, r"at least two known classes .* but got \['a'\]"),
        ('wrong.csv', 'other', ValueError, r"columns \['path', 'label'\] in wrong.csv but got \['file'\]"),
    ],
)
def test_wrong_input_is_explained(photos, labelled, unlabelled, error, match):
    (photos / 'wrong.csv').write_text('file\nx\n')
    with pytest.raises(error, match=match):
        scan(labelled, unlabelled)


def test_find_images_takes_files_and_folders(photos):
    (photos / 'other/broken.png').write_bytes(b'')
    good, broken = find_images(['known/cat/3.PNG', 'other'])
    assert good == ['known/cat/3.PNG', 'other/b.png', 'other/a/z.png']
    assert [path for path, _ in broken] == ['other/broken.png']


# --------------------------------------------------------------------------------------------------
# Listed images.


@pytest.fixture
def listed(tmp_path):
    names = ['a.png', os.fsdecode(b'b\xff.png'), 'sub/c.png']
    (tmp_path / 'sub').mkdir()
    for grey, name in enumerate(names):
        Image.new('L', (10, 8), grey).save(tmp_path / name, 'PNG')
    content = {'folder': str(tmp_path), 'classes': ['x', 'y'], 'paths': names, 'labels': [1, -1, 0]}
    (tmp_path / 'images.json').write_text(json.dumps(content))
    return str(tmp_path / 'images.json')


@pytest.mark.parametrize('in_memory', [False, True])
def test_samples(listed, in_memory):
    dataset = ListedImages(listed, side=4, in_memory=in_memory)
    assert [dataset[index]['gt_label'] for index in range(3)] == [1, -1, 0]
    assert [dataset[index]['sample_idx'] for index in range(3)] == [0, 1, 2]
    for index in range(3):
        assert np.array_equal(dataset[index]['img'], np.full((4, 4, 3), index))
        assert 'img_path' not in dataset[index]


def test_labelled_subset(listed):
    dataset = ListedImages(listed, side=4, subset='labelled')
    assert dataset.get_gt_labels().tolist() == [1, 0]
    assert dataset.get_cat_ids(1) == [0]
    assert int(dataset[1]['img'].max()) == 2


def test_known_classes_are_in_the_metainfo(listed):
    dataset = ListedImages(listed, side=4)
    assert dataset.metainfo == {'classes': ('x', 'y'), 'num_known': 2}


def test_images_in_memory_are_read_once(listed, tmp_path):
    dataset = ListedImages(listed, side=4, in_memory=True)
    (tmp_path / 'a.png').unlink()
    assert dataset[0]['img'].shape == (4, 4, 3)


def test_an_image_that_vanished_is_no_other_one(listed, tmp_path):
    dataset = ListedImages(listed, side=4)
    (tmp_path / 'a.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'a\.png'):
        dataset[0]


def test_wrong_arguments(listed):
    with pytest.raises(ValueError, match=r"ListedImages.*subset.*'all', 'labelled'.*'novel'"):
        ListedImages(listed, side=4, subset='novel')
    with pytest.raises(FileNotFoundError, match=r'list of images at nowhere\.json'):
        ListedImages('nowhere.json', side=4)
