import json

import pytest

from mmkd_ext.datasets.novel_class_split import partition_classes

CLASSES = ['cat', 'dog', 'fox', 'hen', 'owl']


@pytest.mark.parametrize(
    ('known', 'novel', 'expected'),
    [
        (2, None, ([0, 1], [2, 3, 4])),
        (5, None, ([0, 1, 2, 3, 4], [])),
        ([4, 0], None, ([4, 0], [1, 2, 3])),
        (['owl', 'cat'], ['hen', 'dog'], ([4, 0], [3, 1])),
        ([0, 'owl'], [1], ([0, 4], [1])),
        (2, ['owl'], ([0, 1], [4])),
    ],
)
def test_forms(known, novel, expected):
    assert partition_classes(known, novel, CLASSES) == expected


def test_split_file_strings_difficulties_hard_medium_easy(tmp_path):
    path = tmp_path / 'ssb.json'
    path.write_text(json.dumps({'known': [3, 1], 'unknown': {'Easy': [0], 'Medium': [4], 'Hard': [2]}}))
    assert partition_classes(str(path), None, CLASSES) == ([3, 1], [2, 4, 0])


@pytest.mark.parametrize(
    ('known', 'novel', 'error', 'message'),
    [
        (['dgo'], None, KeyError, r"NovelClassSplit.known: expected a class name but got 'dgo'; .*\['dog'"),
        ([0], ['howl'], KeyError, r"NovelClassSplit.novel: expected a class name but got 'howl'; .*\['owl'"),
        ([5], None, ValueError, r'expected class indices 0..4 but got 5'),
        ([-1], None, ValueError, r'expected class indices 0..4 but got -1'),
        ([0, 'cat'], None, ValueError, r"expected each class once but got \['cat'\]"),
        (0, None, ValueError, r'expected 1..5 classes but got 0'),
        (6, None, ValueError, r'expected 1..5 classes but got 6'),
        ([], None, ValueError, 'expected at least one class but got none'),
        ([0, 1], [1, 2], ValueError, r"expected disjoint classes but got \['dog'\] known and novel"),
        (2, 3, TypeError, 'NovelClassSplit.novel: expected a list of classes or None but got 3'),
        (1.5, None, TypeError, 'expected a number, a list of classes or a path but got 1.5'),
        (True, None, TypeError, 'but got True'),
        ([0.5], None, TypeError, 'expected class names or indices but got 0.5'),
        ('nowhere.json', None, FileNotFoundError, 'expected an SSB split file but got .*nowhere.json'),
    ],
)
def test_errors(known, novel, error, message):
    with pytest.raises(error, match=message):
        partition_classes(known, novel, CLASSES)


@pytest.mark.parametrize('text', ['not json', '[1, 2]', '{"known": [1]}', '{"known": [1], "unknown": [2]}'])
def test_damaged_split_file(tmp_path, text):
    path = tmp_path / 'ssb.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'expected \{"known": .*ssb.json but got'):
        partition_classes(str(path), None, CLASSES)


def test_split_file_beside_novel(tmp_path):
    with pytest.raises(ValueError, match='expected no `novel` beside the split file'):
        partition_classes('ssb.json', [1], CLASSES)
