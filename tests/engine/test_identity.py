import numpy as np
import pytest
import torch
from mmengine.model import ImgDataPreprocessor
from torch import nn

from mmkd_ext.datasets import Digits
from mmkd_ext.distill import FrozenTeacher, InputAdapter, Normalization
from mmkd_ext.engine.teacher_features import dataset_fingerprint, sample_digests, view_fingerprint


class Infos:
    """A data set that says what it is told to say."""

    def __init__(self, *infos):
        self.infos = infos

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, index):
        return self.infos[index]


class Student(nn.Module):
    def __init__(self, **preprocessor):
        super().__init__()
        self.data_preprocessor = ImgDataPreprocessor(**{'mean': [100.0], 'std': [50.0], **preprocessor})


def view(pipelines=({'type': 'A'},), student=None, adapt=None):
    return view_fingerprint(pipelines, student or Student(), FrozenTeacher(nn.Identity(), [], adapt=adapt))


def test_samples_count_with_their_pixels_and_the_pipeline_does_not():
    first = dataset_fingerprint(Digits(indices=20), 'x')
    assert dataset_fingerprint(Digits(indices=20, pipeline=[]), 'x') == first
    assert dataset_fingerprint(Digits(indices=21), 'x') != first
    changed = Digits(indices=20)
    changed.data_list[3]['img'] = np.zeros((8, 8), dtype=np.uint8)
    assert dataset_fingerprint(changed, 'x') != first


def test_an_image_that_changed_under_its_name(tmp_path):
    path = tmp_path / 'image.png'
    path.write_bytes(b'12')
    dataset = Infos({'img_path': str(path), 'gt_label': 1})
    before = list(sample_digests(dataset, 'x'))
    path.write_bytes(b'123')
    assert list(sample_digests(dataset, 'x')) != before


def test_samples_are_known_by_their_index_or_else_their_position():
    indices = [index for index, _ in sample_digests(Infos({'sample_idx': 7}, {'label': 1}), 'x')]
    assert indices == [7, 1]


@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        ([1], r'who: expected a data set with get_data_info\(\) but got list'),
        (Infos({'image': object()}), 'who: expected samples described by numbers, text and arrays but .*object'),
    ],
)
def test_data_that_says_nothing(dataset, message):
    with pytest.raises(TypeError, match=message):
        dataset_fingerprint(dataset, 'who')


def test_a_view_is_known_again():
    assert view() == view()


@pytest.mark.parametrize(
    'other',
    [
        {'pipelines': ({'type': 'B'},)},
        {'student': Student(mean=[101.0])},
        {'student': Student(pad_size_divisor=32)},
        {'student': nn.Identity()},
        {'adapt': InputAdapter(Normalization(), Normalization((1.0,), (2.0,)))},
        {'adapt': InputAdapter(Normalization(), size=(4, 4))},
    ],
)
def test_another_view(other):
    assert view(**other) != view()


def test_what_the_view_does_not_depend_on():
    moved, named = Student(), InputAdapter(Normalization(), size=(4, 4), caller='teacher')
    moved.data_preprocessor._device = torch.device('meta')
    moved.data_preprocessor.batch_augments = nn.Identity()
    assert view(student=moved) == view()
    assert view(adapt=named) == view(adapt=InputAdapter(Normalization(), size=(4, 4), caller='other'))
