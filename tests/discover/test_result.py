"""From scores to the table and the map."""

import json

import numpy as np
import pytest

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover.inference import Predictions
from mmkd_ext.discover.result import Trial, discovery_result, map_points, read_curves


@pytest.fixture
def result():
    images = FolderImages(['a', 'b', 'c'], [1, -1, -1], ['x', 'y'], [8] * 3, True, [('d', 'cut off')])
    scores = np.array([[0.6, 0.3, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.8, 0.1, 0.1, 0.0]])
    cosine = np.array([[0.9, 0.4, 0.0, 0.0], [0.1, 0.3, 0.8, 0.0], [1.0, 0.1, 0.1, 0.0]])
    return discovery_result(
        images,
        Predictions(np.eye(3), scores, cosine),
        ['new 1', 'new 2'],
        ['a', 'b', 'c'],
        title='t',
        curves={},
        trials=[Trial(1, 0.3, 0.01), Trial(2, 0.4, 0.02), Trial(3, 0.2, 0.01)],
        settings={},
    )


def test_labelled_images_keep_their_label_with_the_model_s_confidence_in_it(result):
    assert result.labels.tolist() == [1, 2, 0]
    assert result.confidence.tolist() == [0.3, 0.7, 0.8]
    assert np.allclose(result.distance, [0.6, 0.2, 0.0])
    assert result.is_labelled.tolist() == [True, False, False]


def test_relation_is_the_mean_share_of_the_known_classes_and_0_without_members(result):
    share = 1 / (1 + np.exp((0.1 - 0.3) / 0.1))
    assert np.allclose(result.relation_NK, [[1 - share, share], [0.0, 0.0]])


def test_the_number_of_classes_is_that_of_the_best_trial(result):
    assert (list(result.class_count.candidates), result.class_count.chosen) == ([1, 2, 3], 2)
    assert list(result.class_count.scores) == [0.3, 0.4, 0.2]
    assert list(result.class_count.errors) == [0.01, 0.02, 0.01]


def test_a_map_of_many_images_puts_twins_at_one_place(monkeypatch):
    from mmkd_ext.discover import result

    monkeypatch.setattr(result, '_MAX_PROJECTED', 30)
    monkeypatch.setattr(result, '_TILE', 7)
    kinds = np.eye(4)[np.arange(80) % 4] + np.random.default_rng(0).normal(scale=0.01, size=(80, 4))
    points = map_points(kinds)
    assert points.shape == (80, 2)
    assert np.isfinite(points).all()
    centres = np.stack([points[kind::4].mean(axis=0) for kind in range(4)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == np.arange(80) % 4).all()
    assert np.array_equal(points, map_points(kinds))


def test_a_later_start_continues_the_curves(tmp_path):
    for start, epochs in (('1', (1, 2, 3)), ('2', (3, 4))):
        folder = tmp_path / start / 'vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps({'epoch': epoch, 'loss': epoch + int(start), 'lr': 0.1}) for epoch in epochs]
        (folder / 'scalars.json').write_text('\n'.join(lines))
    assert read_curves(tmp_path) == {'loss': [(1, 2), (2, 3), (3, 5), (4, 6)]}
