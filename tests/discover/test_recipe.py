"""Choices by size, colour and number of images."""

import os

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover import choose_recipe

OWN = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=3, channels=(4, 6), init_cfg=dict(type='Pretrained')),
    data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb={to_rgb}))
"""


@pytest.fixture
def images(tmp_path):
    def make(side: int, num_images: int, are_grey: bool = True, num_labelled: int = 300) -> FolderImages:
        path = str(tmp_path / 'x.png')
        Image.fromarray(np.tile(np.array([0, 200], dtype=np.uint8), (8, 4))).save(path)
        num_labelled = min(num_labelled, num_images - 1)
        labels = [0] * num_labelled + [-1] * (num_images - num_labelled)
        return FolderImages([path] * num_images, labels, ['a', 'b'], [side] * num_images, are_grey)

    return make


@pytest.mark.parametrize(('side', 'stages'), [(3, 3), (8, 3), (12, 3), (28, 3), (32, 3), (33, 4), (64, 4)])
def test_small_images_keep_their_size_and_stay_in_memory(images, side, stages):
    recipe = choose_recipe(images(side, 5))
    assert (recipe.side, recipe.crop) == (max(side, 8), max(side, 8))
    assert recipe.in_memory
    assert len(recipe.backbone['channels']) == stages
    assert recipe.num_features == recipe.backbone['channels'][-1]


def test_normalisation_is_that_of_the_pixels(images):
    recipe = choose_recipe(images(8, 5))
    assert recipe.mean == [100.0] * 3
    assert recipe.std == [100.0] * 3


@pytest.mark.parametrize(('num_images', 'epochs'), [(50, 80), (1250, 80), (2000, 50), (5000, 20), (100_000, 20)])
def test_epochs_by_number(images, num_images, epochs):
    assert choose_recipe(images(8, num_images)).epochs == epochs
    assert choose_recipe(images(8, num_images), epochs=3).epochs == 3


@pytest.mark.parametrize(('num_labelled', 'batch_size'), [(1, 2), (50, 50), (500, 128)])
def test_every_stage_fills_a_batch(images, num_labelled, batch_size):
    recipe = choose_recipe(images(8, 600, num_labelled=num_labelled))
    assert (recipe.batch_size, recipe.contrast_batch_size) == (batch_size, 256)


def test_a_batch_is_not_larger_than_there_are_images(images):
    assert choose_recipe(images(8, 60, num_labelled=50)).contrast_batch_size == 60


def test_colour_decides_on_the_augmentation(images):
    assert choose_recipe(images(8, 5, are_grey=False)).is_photo
    assert not choose_recipe(images(8, 5, are_grey=True)).is_photo


def test_large_images_take_a_resnet_18(images):
    recipe = choose_recipe(images(65, 5), checkpoint='weights.pth')
    assert (recipe.side, recipe.crop, recipe.in_memory) == (256, 224, False)
    assert (recipe.backbone['type'], recipe.backbone['depth'], recipe.num_features) == ('ResNet', 18, 512)
    assert recipe.neck == {'type': 'GlobalAveragePooling'}
    assert recipe.mean == [123.675, 116.28, 103.53]
    assert recipe.is_pretrained
    assert recipe.backbone['init_cfg']['checkpoint'] == 'weights.pth'


@pytest.mark.parametrize('to_rgb', [True, False])
def test_backbone_of_a_config_file(images, tmp_path, to_rgb):
    (tmp_path / 'own.py').write_text(OWN.format(to_rgb=to_rgb))
    recipe = choose_recipe(images(8, 5), backbone=os.fspath(tmp_path / 'own.py'))
    assert (recipe.num_features, recipe.mean, recipe.std) == (6, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert recipe.to_bgr is not to_rgb
    assert not recipe.is_pretrained


def test_near_misses_of_a_name(images):
    with pytest.raises(KeyError, match='resnet18_8xb32_in1k'):
        choose_recipe(images(8, 5), backbone='resnet18_8xb32_in1')
