import itertools

import numpy as np
import pytest

from mmkd_ext.scores.cluster_accuracy import cluster_accuracy, contingency_table, match_clusters


def test_table_counts_pairs():
    table = contingency_table(np.array([0, 0, 2, 2, 2]), np.array([1, 1, 0, 3, 3]), 3, 4)
    assert table.tolist() == [[0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 2]]


@pytest.mark.parametrize(('num_classes', 'num_clusters'), [(4, 4), (3, 5), (5, 3)])
def test_no_assignment_agrees_with_more_samples(num_classes, num_clusters):
    counts = np.random.default_rng(0).integers(0, 9, (num_classes, num_clusters))
    matched = match_clusters(counts)
    ours = sum(counts[matched[c], c] for c in range(num_clusters) if matched[c] >= 0)
    size = max(counts.shape)
    padded = np.zeros((size, size), dtype=int)
    padded[:num_classes, :num_clusters] = counts
    assert ours == max(sum(padded[t, c] for c, t in enumerate(p)) for p in itertools.permutations(range(size)))


def test_each_class_is_used_once():
    matched = match_clusters(np.random.default_rng(1).integers(1, 9, (4, 6)))
    used = matched[matched >= 0]
    assert len(used) == len(set(used.tolist())) == 4


def test_cluster_without_samples_stays_unmatched():
    assert match_clusters(np.array([[3, 0], [0, 0]])).tolist() == [0, -1]


def test_agreement_is_the_v2_accuracy():
    rng = np.random.default_rng(2)
    labels, clusters = rng.integers(0, 6, 200), rng.integers(0, 6, 200)
    matched = match_clusters(contingency_table(labels, clusters, 6, 6))
    assert (matched[clusters] == labels).mean() == pytest.approx(cluster_accuracy(labels, clusters)['all'])
