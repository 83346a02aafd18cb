"""Semi-supervised k-means against brute force, against scikit-learn, and what must hold in every iteration."""

import itertools
import sys

import numpy as np
import pytest
from sklearn.cluster import KMeans

from mmkd_ext.clustering.kmeans import constrained_lloyd, nearest_centre, semi_supervised_kmeans
from mmkd_ext.scores.cluster_accuracy import adjusted_rand_index


def blobs(sizes, num_dims=6, spread=0.3, seed=0):
    """Samples around random centres, and which centre they are of."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(len(sizes)), sizes)
    centres = 4 * rng.normal(size=(len(sizes), num_dims))
    return centres[true] + spread * rng.normal(size=(len(true), num_dims)), true


def inertia_of(features, ids):
    """Sum of squared distances to the means, by loops."""
    return sum(
        float(np.square(features[ids == k] - features[ids == k].mean(axis=0)).sum()) for k in np.unique(ids).tolist()
    )


def brute_force(features, labels, num_clusters):
    """Lowest inertia of all assignments that respect the labels."""
    free = np.flatnonzero(labels < 0)
    best = np.inf
    for choice in itertools.product(range(num_clusters), repeat=len(free)):
        ids = labels.copy()
        ids[free] = choice
        best = min(best, inertia_of(features, ids))
    return best


def best_of_all_starts(features, labels, num_clusters):
    """Lowest inertia that Lloyd's algorithm, in loops, reaches from any unlabelled samples as further centres."""
    num_labelled = labels.max() + 1
    known = [features[labels == k].mean(axis=0) for k in range(num_labelled)]
    results = []
    for start in itertools.combinations(np.flatnonzero(labels < 0), num_clusters - num_labelled):
        centres, ids, before = [*known, *features[list(start)]], labels.copy(), None
        while before is None or not np.array_equal(ids, before):
            before = ids.copy()
            for n in np.flatnonzero(labels < 0):
                ids[n] = np.argmin([np.square(features[n] - centre).sum() for centre in centres])
            centres = [features[ids == k].mean(axis=0) for k in range(num_clusters)]
        results.append(inertia_of(features, ids))
    return min(results)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(('num_labelled', 'num_clusters'), [(0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3)])
def test_finds_the_best_of_all_starts(seed, num_labelled, num_clusters):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(9, 2))
    labels = np.full(9, -1)
    labels[:2] = rng.permutation([0, num_labelled - 1]) if num_labelled else -1
    found = semi_supervised_kmeans(features, labels, num_clusters, num_inits=200)
    assert found.inertia == pytest.approx(inertia_of(features, found.ids_N))
    assert found.inertia == pytest.approx(best_of_all_starts(features, labels, num_clusters))
    best = brute_force(features, labels, num_clusters)
    assert found.inertia >= best - 1e-9
    if num_labelled == 0:
        assert found.inertia == pytest.approx(best)


def test_labelled_samples_stay_with_their_class_wherever_they_lie():
    features, true = blobs([40, 40, 40, 40])
    labels = np.where(np.arange(160) % 4 == 0, true, -1)
    labels[true >= 2] = -1
    labels[0], labels[40] = 1, 0  # two samples in the midst of the other class
    found = semi_supervised_kmeans(features, labels, 4)
    assert np.array_equal(found.ids_N[labels >= 0], labels[labels >= 0])
    assert found.ids_N.dtype == np.int64
    others = labels < 0
    assert adjusted_rand_index(true[others], found.ids_N[others]) == 1.0
    assert np.array_equal(found.ids_N[others & (true < 2)], true[others & (true < 2)])


def test_unlabelled_samples_are_with_their_nearest_centre_which_is_the_mean():
    features, true = blobs([50] * 5, spread=2.5)
    labels = np.where((np.arange(250) % 3 == 0) & (true < 2), true, -1)
    found = semi_supervised_kmeans(features, labels, 6, num_inits=3)
    ids, square = nearest_centre(features, found.centre_KD)
    free = labels < 0
    assert np.array_equal(found.ids_N[free], ids[free])
    for k in range(6):
        np.testing.assert_allclose(found.centre_KD[k], features[found.ids_N == k].mean(axis=0), rtol=1e-12)
    own = found.centre_KD[found.ids_N]
    np.testing.assert_allclose(square[free], np.square(features - own).sum(axis=1)[free], atol=1e-9)


def test_inertia_never_increases():
    features, true = blobs([60] * 6, spread=3.0)
    labels = np.where((np.arange(360) % 5 == 0) & (true < 3), true, -1)
    start = np.random.default_rng(3).normal(size=(9, 6)) * 8  # far out: some clusters begin empty
    course = [constrained_lloyd(features, labels, start, max_iters=n).inertia for n in range(1, 15)]
    assert course[-1] < course[0]
    assert all(later <= before + 1e-9 for before, later in itertools.pairwise(course))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_is_scikit_learns_k_means_where_nothing_is_labelled(dtype):
    features = blobs([70] * 5, spread=3.0)[0].astype(dtype)
    start = features[[0, 10, 100, 200, 300, 310, 20]]
    expected = KMeans(7, init=start, n_init=1, algorithm='lloyd', tol=0, max_iter=500).fit(features)
    found = constrained_lloyd(features, np.full(350, -1), start)
    assert np.array_equal(found.ids_N, expected.labels_)
    np.testing.assert_allclose(found.centre_KD, expected.cluster_centers_, rtol=1e-4)
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-5)


def test_starts_are_as_good_as_scikit_learns():
    features, _ = blobs([50] * 8, spread=1.0)
    expected = KMeans(8, n_init=10, random_state=0).fit(features).inertia_
    assert semi_supervised_kmeans(features, np.full(400, -1), 8).inertia == pytest.approx(expected, rel=1e-6)


def test_seeds_decide_and_more_starts_are_never_worse():
    features, _ = blobs([40] * 6, spread=3.0)
    labels = np.full(240, -1)
    one, again, other = (semi_supervised_kmeans(features, labels, 9, num_inits=1, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.ids_N, again.ids_N)
    assert not np.array_equal(one.ids_N, other.ids_N)
    course = [semi_supervised_kmeans(features, labels, 9, num_inits=n, seed=1).inertia for n in (1, 2, 4, 8)]
    assert course == sorted(course, reverse=True)


def test_tiles_change_nothing(monkeypatch):
    features, true = blobs([50] * 4, spread=2.0)
    labels = np.where((np.arange(200) % 3 == 0) & (true < 2), true, -1)
    whole = semi_supervised_kmeans(features, labels, 5)
    monkeypatch.setattr(sys.modules[constrained_lloyd.__module__], '_TILE_VALUES', 100)
    tiled = semi_supervised_kmeans(features, labels, 5)
    assert np.array_equal(tiled.ids_N, whole.ids_N)
    np.testing.assert_allclose(tiled.centre_KD, whole.centre_KD, rtol=1e-12)


def test_an_empty_cluster_takes_the_farthest_unlabelled_sample():
    features = np.array([[0.0], [1.0], [9.0], [20.0]])
    labels = np.array([0, -1, -1, 0])  # the farthest of all is labelled
    found = constrained_lloyd(features, labels, np.array([[5.0], [1000.0]]), max_iters=1)
    assert found.ids_N.tolist() == [0, 0, 0, 0] or found.ids_N.tolist() == [0, 1, 0, 0]
    assert np.bincount(found.ids_N, minlength=2).min() == 1
    # Distances to 5 are 4 and 4: the first of equals goes.
    assert found.ids_N.tolist() == [0, 1, 0, 0]


def test_duplicates_leave_clusters_empty_and_all_numbers_finite():
    features = np.ones((6, 3))
    found = semi_supervised_kmeans(features, np.array([0, -1, -1, -1, -1, -1]), 4)
    assert found.inertia == 0
    assert np.isfinite(found.centre_KD).all()
    assert found.ids_N.tolist() == [0] * 6


def test_every_cluster_labelled_and_every_sample_labelled():
    features, true = blobs([20, 20])
    labels = np.where(np.arange(40) % 2 == 0, true, -1)
    assert np.array_equal(semi_supervised_kmeans(features, labels, 2).ids_N, true)
    full = semi_supervised_kmeans(features, true, 2)
    assert np.array_equal(full.ids_N, true)
    assert full.inertia == pytest.approx(inertia_of(features, true))


def test_as_many_clusters_as_samples():
    features = np.random.default_rng(0).normal(size=(8, 2))
    found = semi_supervised_kmeans(features, np.array([0, 1] + [-1] * 6), 8)
    assert sorted(found.ids_N) == list(range(8))
    assert found.inertia == pytest.approx(0)


def test_input_is_left_alone():
    features, true = blobs([10, 10])
    labels = np.where(np.arange(20) < 5, true, -1)
    before = features.copy(), labels.copy()
    semi_supervised_kmeans(features, labels, 2)
    assert np.array_equal(features, before[0])
    assert np.array_equal(labels, before[1])


def test_errors():
    features, labels = np.ones((4, 2)), np.array([0, 1, -1, -1])
    with pytest.raises(ValueError, match=r'expected 2 to 4 clusters but got 5; there are 2 labelled classes and 2 unl'):
        semi_supervised_kmeans(features, labels, 5)
    with pytest.raises(ValueError, match='expected 2 to 4 clusters but got 1'):
        semi_supervised_kmeans(features, labels, 1)
    with pytest.raises(ValueError, match=r'without gaps but got \[0, 2\]; renumber'):
        semi_supervised_kmeans(features, np.array([0, 2, -1, -1]), 3)
    with pytest.raises(ValueError, match=r'expected features \(N, D\) and labels \(N,\), N >= 1, but got \(4, 2\)'):
        semi_supervised_kmeans(features, labels[:3], 2)
    with pytest.raises(ValueError, match=r'N >= 1, but got \(0, 2\)'):
        semi_supervised_kmeans(features[:0], labels[:0], 1)
    with pytest.raises(TypeError, match='expected integer labels but got float64'):
        semi_supervised_kmeans(features, labels.astype(float), 2)
    with pytest.raises(ValueError, match='expected num_inits and max_iters of at least 1 but got 0 and 300'):
        semi_supervised_kmeans(features, labels, 2, num_inits=0)
    features[1, 0] = np.inf
    with pytest.raises(ValueError, match='expected finite features but 1 samples have NaN or infinity'):
        semi_supervised_kmeans(features, labels, 2)
