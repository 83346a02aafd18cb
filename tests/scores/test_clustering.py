"""Cluster metrics against the official code's outputs, scikit-learn, and a search over all matchings."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from mmkd_ext.scores.cluster_accuracy import (
    Contingency,
    adjusted_rand_index,
    cluster_accuracy,
    contingency_table,
    match_clusters,
    normalized_mutual_info,
)

F64 = {'rel': 1e-9, 'abs': 1e-12}
CASES = [
    'random10', 'perfect_perm', 'full_perm', 'noisy20', 'noisy60', 'imbalanced', 'imbalanced_rev', 'pred15_true10',
    'pred7_true10', 'one_cluster', 'unequal_split_7seen', 'split_novel_cluster', 'missing_true_class', 'tiny',
]  # fmt: skip
# Several matchings are best, and these numbers depend on which one a solver returns (tests/golden/README.md).
TIED = {
    ('one_cluster', 'v2', 'known'),
    ('one_cluster', 'v2', 'novel'),
    *(('one_cluster', 'v3', k) for k in ('all', 'novel')),
}
METRICS = [
    (normalized_mutual_info, normalized_mutual_info_score),
    (adjusted_rand_index, adjusted_rand_score),
]


def best_by_search(y_true, y_pred, num_labels):
    """Hits of the best one-to-one renaming of clusters, all of them tried."""
    return max(
        sum(renamed[p] == t for t, p in zip(y_true, y_pred, strict=True))
        for renamed in itertools.permutations(range(num_labels))
    )


def test_every_official_case_is_listed(golden):
    assert {key.split('/')[0] for key in golden('crkd_cluster_metrics')} == set(CASES)


@pytest.mark.parametrize('protocol', ['v1', 'v2', 'v3'])
@pytest.mark.parametrize('case', CASES)
def test_official_accuracy(golden, case, protocol):
    vectors = golden('crkd_cluster_metrics')
    y_true, y_pred, num_known = (vectors[f'{case}/{name}'] for name in ('y_true', 'y_pred', 'num_seen'))
    result = cluster_accuracy(y_true, y_pred, num_known=int(num_known), protocol=protocol)
    assert list(result) == ['all', 'known', 'novel']
    for ours, theirs in (('all', 'all'), ('known', 'seen'), ('novel', 'novel')):
        if (case, protocol, ours) not in TIED:
            assert result[ours] == pytest.approx(float(vectors[f'{case}/{protocol}/{theirs}']), **F64), ours


@pytest.mark.parametrize('part', ['novel', 'all'])
@pytest.mark.parametrize('case', CASES)
def test_official_cluster_eval(golden, case, part):
    """The task-aware numbers: novel samples alone; and the same function on all samples."""
    vectors = golden('crkd_cluster_metrics')
    y_true, y_pred = vectors[f'{case}/y_true'], vectors[f'{case}/y_pred']
    chosen = y_true >= (vectors[f'{case}/num_seen'] if part == 'novel' else 0)
    y_true, y_pred = torch.from_numpy(y_true[chosen]), torch.from_numpy(y_pred[chosen])
    expected = {
        name: float(vectors[f'{case}/cluster_eval_{part}/{name}']) for name in ('novel', 'novel_nmi', 'novel_ari')
    }
    assert cluster_accuracy(y_true, y_pred)['all'] == pytest.approx(expected['novel'], **F64)
    assert normalized_mutual_info(y_true, y_pred) == pytest.approx(expected['novel_nmi'], **F64)
    assert adjusted_rand_index(y_true, y_pred) == pytest.approx(expected['novel_ari'], **F64)


@pytest.mark.parametrize('seed', range(8))
def test_all_matchings_tried(seed):
    rng = np.random.default_rng(seed)
    y_true, y_pred = rng.integers(0, 6, size=(2, 40)).tolist()
    num_known = 2
    novel = [(t, p) for t, p in zip(y_true, y_pred, strict=True) if t >= num_known]
    known_hits = sum(t == p for t, p in zip(y_true, y_pred, strict=True) if t < num_known)
    v1, v2, v3 = (cluster_accuracy(y_true, y_pred, num_known=num_known, protocol=p) for p in ('v1', 'v2', 'v3'))
    assert v1['all'] == v2['all'] == pytest.approx(best_by_search(y_true, y_pred, 6) / 40)
    assert v1['known'] == v3['known'] == pytest.approx(known_hits / (40 - len(novel)))
    assert v1['novel'] == pytest.approx(best_by_search(*zip(*novel, strict=True), 6) / len(novel))
    block = [(t - num_known, p - num_known) for t, p in novel if p >= num_known]
    block_hits = best_by_search(*zip(*block, strict=True), 4)
    assert v3['novel'] == pytest.approx(block_hits / len(novel))
    assert v3['all'] == pytest.approx((known_hits + block_hits) / 40)
    assert v2['all'] * 40 == pytest.approx(v2['known'] * (40 - len(novel)) + v2['novel'] * len(novel))


@pytest.mark.parametrize(('ours', 'reference'), METRICS)
@pytest.mark.parametrize('seed', range(6))
def test_sklearn(ours, reference, seed):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 8, size=300)
    y_pred = np.where(rng.random(300) < seed / 5, y_true, rng.integers(0, 12, size=300))
    assert ours(y_true, y_pred) == pytest.approx(reference(y_true, y_pred), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(('ours', 'reference'), METRICS)
@pytest.mark.parametrize(
    ('y_true', 'y_pred'),
    [
        ([0], [0]), ([0], [3]), ([0, 0, 0], [2, 2, 2]), ([0, 0, 0], [0, 1, 2]), ([0, 1, 2], [0, 0, 0]),
        ([0, 1, 2], [2, 1, 0]), ([0, 0, 1, 1], [0, 1, 0, 1]), ([0, 0, 1, 1], [1, 1, 0, 0]),
    ],
)  # fmt: skip
def test_sklearn_degenerate(ours, reference, y_true, y_pred):
    assert ours(y_true, y_pred) == pytest.approx(reference(y_true, y_pred), abs=1e-12)


def test_table_of_sklearn_serves_all_scores():
    y_true, y_pred = np.random.default_rng(0).integers(0, 7, size=(2, 200))
    counted = Contingency(y_true, y_pred)
    assert (counted.table_PT == contingency_matrix(y_pred, y_true)).all()
    for protocol in ('v1', 'v2', 'v3'):
        expected = cluster_accuracy(y_true, y_pred, num_known=3, protocol=protocol)
        assert counted.accuracy(num_known=3, protocol=protocol) == expected
    assert counted.normalized_mutual_info() == pytest.approx(normalized_mutual_info_score(y_true, y_pred), rel=1e-12)
    assert counted.adjusted_rand_index() == pytest.approx(adjusted_rand_score(y_true, y_pred), rel=1e-12)


def test_adjusted_rand_index_of_millions_of_samples():
    """Products of pair counts exceed 64 bits; a table whose rows are copies of one another is chance exactly."""
    y_true, y_pred = np.tile(np.arange(4), 10**6), np.repeat(np.arange(4), 10**6)
    pairs, together, cell = (math.comb(n, 2) for n in (4 * 10**6, 10**6, 250_000))
    expected_together = (4 * together) ** 2 / pairs
    expected = (16 * cell - expected_together) / (4 * together - expected_together)
    assert adjusted_rand_index(y_true, y_pred) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('metric', [normalized_mutual_info, adjusted_rand_index])
def test_symmetric_and_blind_to_names(metric):
    y_true, y_pred = torch.randint(0, 5, (2, 60)).unbind()
    result = metric(y_true, y_pred)
    assert metric(y_pred, y_true) == pytest.approx(result, **F64)
    assert metric(y_true, torch.randperm(9)[y_pred]) == pytest.approx(result, **F64)
    order = torch.randperm(60)
    assert metric(y_true[order], y_pred[order]) == pytest.approx(result, **F64)


def test_accuracy_of_all_is_blind_to_cluster_names():
    y_true, y_pred = torch.randint(0, 5, (2, 60)).unbind()
    expected = cluster_accuracy(y_true, y_pred)
    assert cluster_accuracy(y_true, torch.randperm(9)[y_pred])['all'] == pytest.approx(expected['all'])


@pytest.mark.parametrize('kind', [list, np.asarray, torch.tensor, lambda y: torch.tensor(y, dtype=torch.int32)])
def test_kinds_of_labels(kind):
    y_true, y_pred = [0, 0, 1, 2, 2], [1, 1, 0, 2, 0]
    assert cluster_accuracy(kind(y_true), kind(y_pred), num_known=1) == {
        'all': pytest.approx(0.8), 'known': 1.0, 'novel': pytest.approx(2 / 3),
    }  # fmt: skip


@pytest.mark.parametrize('protocol', ['v1', 'v2', 'v3'])
def test_part_without_samples_is_nan(protocol):
    only_novel = cluster_accuracy([3, 4], [4, 3], num_known=3, protocol=protocol)
    assert math.isnan(only_novel['known'])
    assert only_novel['novel'] == only_novel['all'] == 1.0
    only_known = cluster_accuracy([0, 1], [0, 1], num_known=3, protocol=protocol)
    assert math.isnan(only_known['novel'])
    assert only_known['known'] == only_known['all'] == 1.0


def test_without_known_classes_all_are_novel():
    result = cluster_accuracy([0, 1, 1], [1, 0, 0])
    assert math.isnan(result.pop('known'))
    assert result == {'all': 1.0, 'novel': 1.0}


@pytest.mark.parametrize('function', [cluster_accuracy, normalized_mutual_info, adjusted_rand_index])
@pytest.mark.parametrize(
    ('y_true', 'y_pred', 'error', 'message'),
    [
        ([0, 1], [0], ValueError, r'one length but got 2 and 1'),
        ([], [], ValueError, r'expected y_true of shape \(n,\), n >= 1, but got \(0,\)'),
        ([[0, 1]], [[0, 1]], ValueError, r'expected y_true of shape \(n,\), n >= 1, but got \(1, 2\)'),
        ([0, -1], [0, 1], ValueError, r'expected y_true >= 0 but got -1; -1 is a hidden label'),
        ([0, 1], [0.2, 0.8], TypeError, r'expected integer y_pred but got float64; pass class indices'),
    ],
)
def test_bad_labels(function, y_true, y_pred, error, message):
    with pytest.raises(error, match=f'{function.__name__}: .*{message}'):
        function(y_true, y_pred)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'protocol': 'v4'}, r"expected protocol in \('v1', 'v2', 'v3'\) but got 'v4'"),
        ({'num_known': -1}, r'expected num_known >= 0 but got -1'),
    ],
)
def test_bad_setting(settings, message):
    with pytest.raises(ValueError, match=f'cluster_accuracy: {message}'):
        cluster_accuracy([0, 1], [0, 1], **settings)


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
