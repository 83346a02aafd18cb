"""Images in folders, and the list that is made of them."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mmkd_ext import pictures
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


# --- whatever lies in a folder is used, broken or ignored


def _noise(path, kind, mode='RGB'):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pixels = np.random.default_rng(len(os.fsencode(path))).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, kind)


def test_every_file_is_used_or_broken_or_ignored_with_a_reason(photos):
    kinds = {'jfif': 'JPEG', 'jpe': 'JPEG', 'tga': 'TGA', 'mpo': 'MPO', 'dib': 'DIB', 'j2k': 'JPEG2000', 'PNM': 'PPM'}
    used = [f'other/new/image.{suffix}' for suffix in kinds] + ['other/new/0123abc', 'other/new/image.jpg_large']
    for path, kind in zip(used, [*kinds.values(), 'PNG', 'JPEG'], strict=True):
        _noise(path, kind)
    words = {
        'raw.CR2': 'camera raw',
        'clip.mp4': 'video',
        'plan.svg': 'drawing',
        'scan.pdf': 'document',
        'all.zip': 'archive',
        'notes.txt': 'text or data',
        'data.xyz': 'no image that Pillow can read',
        '.hidden.png': 'hidden',
    }
    broken = {'page.jpg': (b'<!DOCTYPE html>', 'web page'), 'lfs.png': (b'version https://git-lfs', 'git lfs pull')}
    broken['phone.jpg'] = b'\0\0\0 ftypheic', 'pip install pillow-heif'
    for name in words:
        (photos / 'other/new' / name).write_bytes(b'some bytes')
    for name, (content, _) in broken.items():
        (photos / 'other/new' / name).write_bytes(content)
    os.mkfifo('other/new/pipe.png')
    os.makedirs('other/nothing')
    before = {'other/b.png', 'other/a/z.png'}
    images = scan('known', 'other')
    assert {path for path, label in zip(images.paths, images.labels, strict=True) if label < 0} == before | {*used}
    told = {os.path.basename(path): reason for path, reason in images.ignored}
    assert told.keys() == {*words, 'pipe.png', 'nothing'}
    assert all(word in told[name] for name, word in words.items())
    reasons = {os.path.basename(path): reason for path, reason in images.broken}
    assert reasons.keys() == broken.keys()
    assert all(word in reasons[name] for name, (_, word) in broken.items() if name != 'phone.jpg')
    good, others = find_images(['other', 'other/new/image.jfif'])
    assert good[-1] == 'other/new/image.jfif'
    assert len(others) == len(told) + len(reasons)


@pytest.mark.parametrize('suffix', ['heic', 'HEIF', 'jxl'])
def test_what_one_more_package_would_read_names_it(photos, suffix, monkeypatch):
    (photos / f'other/x.{suffix}').write_bytes(b'')
    monkeypatch.setattr(pictures, 'image_suffixes', lambda: frozenset(['.png']))
    assert [(path, 'run `pip install pillow-' in reason) for path, reason in scan('known', 'other').ignored] == [
        (f'other/x.{suffix}', True)
    ]


def test_loose_files_and_empty_classes_are_named(photos):
    _image('known/loose.png')
    os.makedirs('known/bird')
    os.makedirs('known/fish')
    (photos / 'known/fish/notes.txt').write_text('none yet')
    (photos / 'known/cow').mkdir()
    (photos / 'known/cow/cut.png').write_bytes(b'\x89PNG')
    images = scan('known', 'other')
    assert images.classes == ['cat', 'dog']
    assert {path for path, _ in images.ignored} == {
        'known/loose.png',
        'known/bird',
        'known/fish',
        'known/fish/notes.txt',
    }
    assert any("none of the 1 images of class 'cow'" in note for note in images.notes)


def test_a_folder_without_images_of_its_own_is_no_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def classes_of(*folders):
        root = tmp_path / str(len(os.listdir()))
        for folder in folders:
            _noise(str(root / 'known' / folder / '1.png'), 'PNG')
        _noise(str(root / 'all' / 'x.png'), 'PNG')
        images = scan(str(root / 'known'), str(root / 'all'))
        return images.classes, [note for note in images.notes if 'folders in' in note]

    def named(*folders):
        classes, notes = classes_of(*folders)
        assert notes
        return classes

    assert named('birds/robin', 'birds/wren', 'fish/cod') == ['cod', 'robin', 'wren']
    assert named('photos/cat', 'photos/dog') == ['cat', 'dog']
    assert named('fruit/apple/red', 'fruit/pear', 'dog') == ['dog', 'pear', 'red']
    assert named('train/cat', 'train/dog', 'val/cat', 'val/dog') == ['cat', 'dog']
    # Parts of a class, not classes: found in several, or numbers.
    assert named('cat/images', 'dog/images') == ['cat', 'dog']
    assert named('cat/2023', 'cat/2024', 'dog/2022') == ['cat', 'dog']
    assert classes_of('dog', 'dog/deep/er', 'cat') == (['cat', 'dog'], [])


def test_links_are_followed_once(photos):
    elsewhere = photos / 'elsewhere'
    _noise(str(elsewhere / 'far.png'), 'PNG')
    _noise(str(elsewhere / 'cow/1.png'), 'PNG')
    for link, target in {
        'known/cow': elsewhere / 'cow',
        'other/far': elsewhere,
        'other/again': elsewhere,
        'other/a/up': photos / 'other',
        'other/same': photos / 'other/a',
        'elsewhere/self': elsewhere,
    }.items():
        os.symlink(target, link)
    images = scan('known', 'other')
    assert images.classes == ['cat', 'cow', 'dog']
    assert [path for path, label in zip(images.paths, images.labels, strict=True) if label < 0] == [
        'other/b.png',
        'other/a/z.png',
        'other/again/far.png',
    ]
    assert sorted(path for path, _ in images.ignored) == [
        'other/a/up',
        'other/again/self',
        'other/far',
        'other/same',
    ]


def test_one_file_in_two_classes_is_refused(photos):
    os.symlink('../cat/3.PNG', 'known/dog/link.png')
    with pytest.raises(
        ValueError, match=r"one label for each image but known/cat/3.PNG of 'cat' and known/dog/link.png"
    ):
        scan('known', 'other')


def test_byte_copies_are_counted(photos):
    notes = scan('known', 'other').notes
    assert any('4 files are copies of others' in note for note in notes)  # all are the same grey
    assert any('2 of these copies have two labels' in note for note in notes)


def test_deep_images_share_one_range(photos):
    for number, top in enumerate((1000, 2000, 4000)):
        pixels = np.linspace(500, top, 256).reshape(16, 16).astype(np.uint16)
        pixels[3, 3] = 65535
        Image.fromarray(pixels).save(f'other/{number}.png')
    images = scan('known', 'other')
    low, high = images.value_range['int']
    assert 500 <= low < 520
    assert 3950 < high <= 4000
    content = {'folder': str(photos), 'classes': [], 'paths': ['other/0.png', 'other/2.png'], 'labels': [-1, -1]}
    (photos / 'images.json').write_text(json.dumps({**content, 'value_range': images.value_range}))
    dark, bright = (sample['img'] for sample in ListedImages('images.json', side=16))
    assert np.median(dark) < 20
    assert 120 < np.median(bright) < 135


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


def test_which_images_are_labelled_is_told_to_a_sampler(listed):
    assert ListedImages(listed, side=4).labelled.tolist() == [True, False, True]


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
