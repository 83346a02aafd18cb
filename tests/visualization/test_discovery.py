import numpy as np
import pytest

from mmkd_ext.visualization import Assignment, Discovery


def discovery():
    rows = [
        Assignment(0, 'train', 2, 1, 0, 0.9, 0.5),
        Assignment(1, 'train', 2, 1, 3, 0.8, 0.4),
        Assignment(2, 'train', 3, 0, 2, 0.7, 0.3),
        Assignment(0, 'test', 0, 1, 0, 0.2, 0.95),
        Assignment(1, 'test', 3, 0, 2, 0.6, 0.85),
        Assignment(2, 'test', 1, 0, 2, 0.6, 0.65),
    ]
    return Discovery(rows, ('ant', 'bee', 'cat', 'dog'), 2, 2, {})


def test_names():
    assert discovery().splits == ['train', 'test']
    assert discovery().output_names == ['ant', 'bee', 'cluster 0', 'cluster 1']


def test_novel_split_is_judged_by_the_novel_head():
    view = discovery().view('train')
    assert view.is_task_aware
    assert view.outputs.tolist() == [3, 3, 2]
    assert view.confidence.tolist() == [0.9, 0.8, 0.7]
    assert view.matched_C.tolist() == [-1, -1, 3, 2]
    assert view.purity_C.tolist() == [0, 0, 1, 1]


def test_mixed_split_is_judged_among_all_classes():
    view = discovery().view('test')
    assert not view.is_task_aware
    assert view.positions.tolist() == [3, 4, 5]
    assert view.outputs.tolist() == [0, 2, 2]
    assert view.confidence.tolist() == [0.95, 0.85, 0.65]
    assert view.purity_C[0] == 1
    assert view.purity_C[2] == pytest.approx(0.5)
    np.testing.assert_array_equal(view.counts_TC.sum(axis=1), [1, 1, 0, 1])
