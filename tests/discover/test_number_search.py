"""Which number of novel classes is taken, and what for."""

import numpy as np
import pytest

from mmkd_ext.discover import result
from mmkd_ext.discover.result import Trial, best_trial, judge, search_number


def search(first, height):
    """Numbers that were tried, in this order, and the best, where ``height`` gives the silhouettes."""
    asked = []

    def discover(num_novel):
        asked.append(num_novel)
        return Trial(num_novel, height(num_novel), 0.01)

    trials = search_number(first, discover)
    assert [trial.num_novel for trial in trials] == sorted(asked)
    return asked, best_trial(trials).num_novel


@pytest.mark.parametrize(
    ('first', 'true', 'asked'),
    [
        (5, 5, [5, 4, 6]),
        (4, 5, [4, 3, 5, 6]),
        (7, 5, [7, 6, 8, 5, 4]),
        (1, 1, [1, 2]),
        (1, 3, [1, 2, 3, 4]),
        (40, 46, [40, 36, 44, 48]),
    ],
)
def test_goes_on_until_both_neighbours_are_worse(first, true, asked):
    tried, best = search(first, lambda num_novel: -abs(num_novel - true))
    assert tried == asked
    assert best == min(tried, key=lambda number: (abs(number - true), number))


def test_of_equals_the_smallest_number_is_taken():
    assert search(3, lambda num_novel: 0.0) == ([3, 2, 4, 1], 1)


def formula(x, labels):
    """Rousseeuw's silhouettes, sample by sample."""
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    values = []
    for i, label in enumerate(labels):
        own = distances[i, labels == label].sum() / ((labels == label).sum() - 1)
        other = min(distances[i, labels == c].mean() for c in set(labels.tolist()) - {label})
        values.append((other - own) / max(own, other))
    return np.array(values)


def test_a_trial_is_judged_by_its_mean_silhouette():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    directions = np.eye(6)[labels] + 0.3 * rng.normal(size=(60, 6))
    values = formula(directions / np.linalg.norm(directions, axis=1, keepdims=True), labels)
    trial = judge(2, directions * rng.uniform(0.5, 5, size=(60, 1)), labels)
    assert trial.num_novel == 2
    assert trial.silhouette == pytest.approx(values.mean())
    assert trial.silhouette_se == pytest.approx(values.std() / 60**0.5)


def test_merged_and_split_classes_score_below_true_ones():
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(5), 20)
    x = np.eye(8)[true] + 0.1 * rng.normal(size=(100, 8))
    merged, split = np.minimum(true, 3), np.where((true == 4) & (np.arange(100) % 2 == 0), 5, true)
    best, *worse = (judge(0, x, labels).silhouette for labels in (true, merged, split))
    assert max(worse) < best - 0.1


def test_of_many_images_a_part_is_judged(monkeypatch):
    monkeypatch.setattr(result, '_MAX_SAMPLES', 30)
    labels = np.arange(90) % 3
    trial = judge(1, np.eye(3)[labels], labels)
    assert trial == Trial(1, 1.0, 0.0)


def test_collapsed_features_give_a_number():
    assert judge(1, np.zeros((6, 2)), np.arange(6) % 2) == Trial(1, 0.0, 0.0)
