"""The input of the page, and the table that is written beside it."""

import csv
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from mmkd_ext.visualization import ClassCount, DiscoveryResult, write_assignments_csv

# --------------------------------------------------------------------------------------------------
# Discovery result.


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


# --------------------------------------------------------------------------------------------------
# Assignments csv.


PATHS = [
    'labelled.png',
    'plain.png',
    ' spaces and, commas .png',
    'quotes " and \'.png',
    'line\nbreak\r\n.png',
    '漢字 \U0001f98b \u2028.png',
    '=1+1.png',
    '@a/b.png',
    '/absolute/-1.png',
]


@pytest.fixture
def result():
    count = len(PATHS)
    return DiscoveryResult(
        title='',
        paths=PATHS,
        pictures=PATHS,
        known_names=['a "known", one'],
        novel_names=['new 1'],
        labels=np.arange(count) % 2,
        confidence=np.linspace(0, 1, count),
        distance=10.0 ** np.arange(-count + 3, 3),
        is_labelled=np.arange(count) == 0,
    )


def test_rows_come_back_as_they_were(result, tmp_path):
    write_assignments_csv(result, tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
        head, *rows = csv.reader(file, strict=True)
    assert head == ['path', 'cluster', 'confidence', 'distance']
    assert [row[0].removeprefix('./') for row in rows] == PATHS[1:]
    assert [row[1] for row in rows] == ['new 1', 'a "known", one'] * 4
    np.testing.assert_allclose([float(row[2]) for row in rows], result.confidence[1:], atol=5e-5)
    np.testing.assert_allclose([float(row[3]) for row in rows], result.distance[1:], rtol=5e-6)


def test_a_path_like_a_formula_is_none_and_still_names_the_same_file(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '=1+1.png').write_text('content')
    write_assignments_csv(result, tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
        paths = [row['path'] for row in csv.DictReader(file)]
    assert not [path for path in paths if path[0] in '=+-@\t\r']
    assert Path(paths[PATHS.index('=1+1.png') - 1]).read_text() == 'content'
    assert paths[-1] == PATHS[-1]


def test_a_name_that_is_no_unicode_keeps_its_bytes(result, tmp_path):
    name = b'caf\xe9 \xff.png'
    odd = dataclasses.replace(result, paths=[*PATHS[:-1], os.fsdecode(name)])
    write_assignments_csv(odd, tmp_path / 'a.csv')
    assert b'\r\n"' + name + b'","' in (tmp_path / 'a.csv').read_bytes()
