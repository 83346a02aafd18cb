"""Images of a list, read once or when they are needed."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets import ListedImages


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
    with pytest.raises(ValueError, match="subset 'all' or 'labelled' but got 'novel'"):
        ListedImages(listed, side=4, subset='novel')
    with pytest.raises(FileNotFoundError, match=r'list of images at nowhere\.json'):
        ListedImages('nowhere.json', side=4)
