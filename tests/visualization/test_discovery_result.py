import numpy as np
import pytest

from mmkd_ext.visualization import ClassCount, DiscoveryResult


def make(**changes):
    fields = {
        'title': 'Images',
        'paths': ['a.png', 'b.png'],
        'pictures': [np.zeros((4, 4), dtype=np.uint8), np.zeros((5, 6, 3), dtype=np.uint8)],
        'known_names': ['cat'],
        'novel_names': ['new 1', 'new 2'],
        'labels': np.array([0, 2]),
        'confidence': np.array([0.0, 1.0]),
        'distance': np.array([0.5, 3.0]),
        'is_labelled': np.array([True, False]),
    }
    return DiscoveryResult(**{**fields, **changes})


def test_names_of_known_classes_come_first():
    assert make().class_names == ['cat', 'new 1', 'new 2']


def test_plain_lists_will_do():
    result = make(labels=[0, 2], confidence=[0.1, 0.2], points=[[0, 1], [1, 0]], relation_NK=[[0.3], [0.4]])
    assert result.labels == [0, 2]


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('pictures', [], r'pictures of shape \(2,\) but got \(0,\)'),
        ('labels', np.zeros(3, dtype=int), r'labels of shape \(2,\) but got \(3,\)'),
        ('points', np.zeros((2, 3)), r'points of shape \(2, 2\) but got \(2, 3\)'),
        (
            'relation_NK',
            np.zeros((1, 2)),
            r'relation_NK of shape \(2, 1\) but got \(1, 2\); there are 2 images',
        ),
        ('labels', np.array([0, 3]), r'labels in \[0, 3\) but got 3'),
        ('labels', np.array([-1, 0]), r'labels in \[0, 3\) but got -1'),
        ('confidence', np.array([0.5, 1.01]), r'confidence in \[0, 1\] but got 1.01'),
        ('confidence', np.array([0.5, np.nan]), r'confidence in \[0, 1\] but got nan'),
        ('distance', np.array([0.5, np.inf]), 'finite distance'),
        ('points', np.full((2, 2), np.nan), 'finite points'),
        ('novel_names', ['cat', 'new 2'], r"different names of classes but got \['cat'\]"),
    ],
)
def test_a_wrong_field_is_refused(name, value, message):
    with pytest.raises(ValueError, match=f'DiscoveryResult: expected {message}'):
        make(**{name: value})


def test_curve_of_unequal_lengths_is_refused():
    with pytest.raises(ValueError, match=r'of one length but got \[2, 2, 1\]'):
        ClassCount([2, 3], [0.5, 0.6], [0.1], 3, 'accuracy')
