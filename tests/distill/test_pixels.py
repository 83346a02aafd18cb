"""Pipelines are run on an image, and the teacher's inputs compared with those made of the image itself."""

import numpy as np
import pytest
import torch

from mmkd_ext.distill import InputAdapter, Normalization
from mmkd_ext.distill.inputs import Pixels, pixels_of, pixels_of_dataset, pixels_of_pipeline

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OWN = dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0])
SCALED = dict(mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
PACK = dict(type='PackInputs')
PIPELINES = {
    'nothing': [PACK],
    'mmcv': [dict(type='Normalize', to_rgb=False, **OWN), PACK],
    'mmcv, RGB': [dict(type='Normalize', **OWN), PACK],
    'torchvision': [dict(type='torchvision/ToTensor'), dict(type='torchvision/Normalize', **SCALED), PACK],
    'torchvision, RGB': [
        *(dict(type='NumpyToPIL', to_rgb=True), dict(type='torchvision/ToTensor')),
        *(dict(type='torchvision/Normalize', **SCALED), PACK),
    ],
    'scaled': [dict(type='torchvision/ToTensor'), PACK],
    'there and back': [
        *(dict(type='NumpyToPIL', to_rgb=True), dict(type='torchvision/RandomSolarize', threshold=0, p=0.0)),
        *(dict(type='PILToNumpy', to_bgr=True), dict(type='mmpretrain.Normalize', **OWN), PACK),
    ],
    'bytes': [
        *(dict(type='NumpyToPIL'), dict(type='torchvision/PILToTensor')),
        dict(type='torchvision/ConvertImageDtype', dtype='float'),
        *(dict(type='torchvision/Normalize', **SCALED), PACK),
    ],
}  # fmt: skip


def image():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)  # BGR, as it is decoded


def wanted():
    """What a teacher that was trained on RGB gets of the image."""
    rgb = torch.from_numpy(image()[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    return (rgb - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.mark.parametrize('as_objects', [False, True])
@pytest.mark.parametrize('preprocessor', [None, dict(mean=[3.0, 2.0, 1.0], std=[2.0, 3.0, 4.0], to_rgb=True)])
@pytest.mark.parametrize('pipeline', PIPELINES.values(), ids=PIPELINES.keys())
def test_the_teacher_sees_the_image_as_it_was_trained_whatever_the_student_sees(pipeline, preprocessor, as_objects):
    pytest.importorskip('mmpretrain')
    from mmengine.registry import DefaultScope
    from mmpretrain.models import ClsDataPreprocessor
    from mmpretrain.registry import TRANSFORMS

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        transforms = [TRANSFORMS.build(dict(transform)) for transform in pipeline]
        preprocess = ClsDataPreprocessor(**(preprocessor or {}))
    sample = dict(img=image(), gt_label=0, img_shape=(6, 5), sample_idx=0)
    for transform in transforms:
        sample = transform(sample)
    inputs = preprocess(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))['inputs']
    seen = pixels_of(preprocess, dict(pipeline=transforms if as_objects else pipeline))
    assert not seen.doubt
    actual = InputAdapter(seen.normalization, Normalization(MEAN, STD, flips_channels=True))(inputs)
    torch.testing.assert_close(actual, wanted(), rtol=1e-4, atol=2e-4)


def test_pipelines_within_data_sets_and_transforms():
    normalize = dict(type='Normalize', **OWN)
    expected = Normalization(tuple(OWN['mean']), tuple(OWN['std']), flips_channels=True)
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[dict(pipeline=[normalize])] * 2))
    assert pixels_of_dataset(wrapped) == Pixels(expected)
    views = [dict(type='MultiView', num_views=2, transforms=[[dict(type='Resize'), normalize]]), PACK]
    assert pixels_of_pipeline(views) == Pixels(expected)
    assert pixels_of_pipeline([dict(type='RandomApply', transforms=[dict(type='GaussianBlur')], prob=0.5)]) == Pixels()
    assert pixels_of(None) == Pixels()


@pytest.mark.parametrize(
    ('dataset', 'doubt'),
    [
        ([dict(pipeline=[]), dict(pipeline=[dict(type='Normalize', **OWN)])], 'normalize images in different ways'),
        (dict(pipeline=[dict(type='RandomApply', transforms=[dict(type='Normalize', **OWN)])]), 'RandomApply .* some'),
        (dict(pipeline=[dict(type='PerImageNormalization')]), 'PerImageNormalization .* not known'),
        (dict(pipeline=[dict(type='MultiView', transforms=[[], [dict(type='Normalize', **OWN)]])]), 'MultiView'),
    ],
)
def test_what_cannot_be_known_is_said(dataset, doubt):
    with pytest.raises(AssertionError, match=doubt):
        raise AssertionError(pixels_of_dataset(dataset).doubt)
