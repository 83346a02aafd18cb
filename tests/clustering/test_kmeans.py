import numpy as np
import pytest
from scipy.stats import ortho_group

from mmkd_ext.clustering.kmeans import superclasses
from mmkd_ext.scores.cluster_accuracy import adjusted_rand_index


def blobs(sizes, num_dims=16, spread=0.05, seed=0):
    """Unit features around orthogonal directions, with random lengths; and what direction they are of."""
    generator = np.random.default_rng(seed)
    centres = ortho_group.rvs(num_dims, random_state=seed)[: len(sizes)]
    true = np.repeat(np.arange(len(sizes)), sizes)
    features = centres[true] + spread * generator.normal(size=(len(true), num_dims))
    return features * generator.uniform(0.1, 10, size=(len(true), 1)), true


@pytest.mark.parametrize('limit', [1e10, 0], ids=['all samples', 'mini-batches'])
def test_finds_directions_whatever_the_lengths(monkeypatch, limit):
    monkeypatch.setattr('mmkd_ext.clustering.kmeans._EXACT_LIMIT', limit)
    features, true = blobs([300, 200, 250])
    ids = superclasses(features, 3)
    assert ids.dtype == np.int64
    assert adjusted_rand_index(true, ids) == 1.0


def test_depends_on_the_seed_alone():
    features = np.random.default_rng(0).normal(size=(300, 8))
    first = superclasses(features, 7, seed=1)
    np.random.seed(5)  # noqa: NPY002
    assert np.array_equal(superclasses(features, 7, seed=1), first)
    assert not np.array_equal(superclasses(features, 7, seed=2), first)


def test_small_clusters_go_to_the_nearest_one_that_is_left():
    features, true = blobs([100, 100, 3])
    near = features[true == 1].mean(axis=0) / np.linalg.norm(features[true == 1].mean(axis=0))
    features[true == 2] += 5 * near  # the three lie between their own direction and that of cluster 1
    assert len(np.unique(superclasses(features, 3))) == 3
    ids = superclasses(features, 3, min_size=4)
    assert np.bincount(ids).tolist() in ([100, 103], [103, 100])
    assert adjusted_rand_index(np.minimum(true, 1), ids) == 1.0


def test_empty_clusters_leave_no_gap():
    features = np.repeat(np.eye(3), 4, axis=0)  # three different samples, five clusters
    with pytest.warns(UserWarning, match='distinct clusters'):
        ids = superclasses(features, 5, min_size=2)
    assert np.bincount(ids).tolist() == [4, 4, 4]


def test_one_superclass_is_left_if_all_are_small():
    features, _ = blobs([3, 3, 3])
    assert superclasses(features, 3, min_size=9).tolist() == [0] * 9


def test_zero_features_are_a_direction_of_their_own():
    features, _ = blobs([20, 20])
    features = np.concatenate([features, np.zeros((5, 16))])
    assert sorted(np.bincount(superclasses(features, 3))) == [5, 20, 20]


def test_input_is_left_alone():
    features, _ = blobs([10, 10])
    features = features.astype(np.float32)
    before = features.copy()
    superclasses(features, 2)
    assert np.array_equal(features, before)


def test_errors():
    features = np.ones((5, 2))
    with pytest.raises(ValueError, match=r'expected 1 to 5 superclasses, of at most 5 samples each, but got 6'):
        superclasses(features, 6)
    with pytest.raises(ValueError, match=r'but got 2 of at least 6; the features are of 5 samples'):
        superclasses(features, 2, min_size=6)
    features[3, 1] = np.nan
    with pytest.raises(ValueError, match=r'finite features but 1 of 5 samples have NaN or infinity'):
        superclasses(features, 2)
