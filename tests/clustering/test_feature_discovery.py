"""Feature discovery on drawn clusters, against formulas written independently."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.stats import multivariate_normal

from mmkd_ext.clustering.discriminant import discriminant_scores, ledoit_wolf_shrinkage, within_class_whitening
from mmkd_ext.clustering.feature_discovery import feature_discovery
from mmkd_ext.clustering.labelled_ward import labelled_ward
from mmkd_ext.scores.cluster_accuracy import adjusted_rand_index, cluster_accuracy


def _clusters(sizes=(60, 60, 60, 60, 60, 60, 25, 40), num_known=6, num_dims=24, spread=0.6, seed=0):
    """Clusters that spread forty times more in a quarter of the directions; half of each known one is labelled."""
    rng = np.random.default_rng(seed)
    scale = np.where(np.arange(num_dims) < num_dims // 4, 40, 1) * spread / num_dims**0.5
    true = np.repeat(np.arange(len(sizes)), sizes)
    centre = rng.normal(size=(len(sizes), num_dims)) * np.where(np.arange(num_dims) < num_dims // 4, 0, 1)
    features = centre[true] + rng.normal(size=(len(true), num_dims)) * scale
    labels = np.where((true < num_known) & (rng.random(len(true)) < 0.5), true, -1)
    return features, labels, true


def test_whitened_spread_is_a_sphere():
    features, labels, _ = _clusters()
    white = within_class_whitening(features, labels, shrinkage=0.0)
    mapped = (features - white.mean_D) @ white.map_DP
    within = np.concatenate([mapped[labels == k] - mapped[labels == k].mean(axis=0) for k in range(6)])
    np.testing.assert_allclose(within.T @ within / len(within), np.eye(24), atol=1e-8)


def test_shrinkage_is_that_of_scikit_learn():
    from sklearn.covariance import ledoit_wolf_shrinkage as oracle

    values = np.random.default_rng(0).normal(size=(50, 20)) * np.arange(1, 21)
    assert ledoit_wolf_shrinkage(values) == pytest.approx(oracle(values, assume_centered=True), rel=1e-9)


def test_discriminant_is_the_log_density_of_gaussians_with_one_covariance():
    features, _, true = _clusters()
    scores = discriminant_scores(features, true, 8, shrinkage=0.1)
    means = np.stack([features[true == k].mean(axis=0) for k in range(8)])
    within = features - means[true]
    cov = within.T @ within / (len(true) - 8)
    cov = 0.9 * cov + 0.1 * np.trace(cov) / 24 * np.eye(24)
    shares = np.bincount(true) / len(true)
    expected = np.stack(
        [multivariate_normal(m, cov).logpdf(features) + np.log(p) for m, p in zip(means, shares, strict=True)], 1
    )
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], atol=1e-8)


def test_ward_without_labels_is_that_of_scipy():
    features, _, _ = _clusters()
    tree = labelled_ward(features, np.full(len(features), -1))
    oracle = linkage(features, 'ward')
    np.testing.assert_allclose(tree.height_S, oracle[:, 2] ** 2 / 2, rtol=1e-6)
    for number in (1, 3, 8, 50):
        assert adjusted_rand_index(cut_tree(oracle, number)[:, 0], tree.cut(number)) == 1


def test_known_classes_stay_whole_and_apart_in_every_cut():
    features, labels, _ = _clusters(spread=3)
    tree = labelled_ward(features, labels)
    for number in (6, 7, 30):
        ids = tree.cut(number)
        np.testing.assert_array_equal(ids[labels >= 0], labels[labels >= 0])
        assert len(np.unique(ids)) == number
    with pytest.raises(ValueError, match='expected 6 to'):
        tree.cut(5)


def test_classes_of_unequal_sizes_are_found_and_whitening_is_chosen():
    features, labels, true = _clusters()
    found = feature_discovery(features, labels, 8)
    free = labels < 0
    assert found.space == 'within'
    assert cluster_accuracy(true[free], found.ids_N[free], num_known=6)['all'] > 0.95
    np.testing.assert_array_equal(found.ids_N[~free], labels[~free])
    again = feature_discovery(features, labels, 8)
    np.testing.assert_array_equal(found.ids_N, again.ids_N)
    np.testing.assert_array_equal(found.confidence_N, again.confidence_N)


def test_scale_and_order_of_samples_do_not_matter():
    features, labels, _ = _clusters()
    order = np.random.default_rng(1).permutation(len(labels))
    one = feature_discovery(features, labels, 8, trials=()).ids_N
    other = feature_discovery(3 * features[order], labels[order], 8, trials=()).ids_N
    assert adjusted_rand_index(one[order], other) > 0.99


@pytest.mark.parametrize(
    'case', ['one image per class', 'two known', 'nothing unlabelled', 'copies', 'D > N', 'constant']
)
def test_degenerate_inputs_end_in_an_answer(case):
    features, labels, true = _clusters(sizes=(12,) * 8)
    if case == 'one image per class':
        labels = np.full(len(true), -1)
        labels[::12] = np.arange(8)
        labels[true >= 6] = -1
    elif case == 'two known':
        labels = np.where(labels < 2, labels, -1)
    elif case == 'nothing unlabelled':
        features, labels = features[labels >= 0], labels[labels >= 0]
    elif case == 'copies':
        features = np.repeat(features[::12], 12, axis=0)
    elif case == 'D > N':
        features = np.random.default_rng(0).normal(size=(len(true), 300))
    else:
        features = np.ones_like(features)
    number = labels.max() + 1 if case == 'nothing unlabelled' else 8
    found = feature_discovery(features, labels, number)
    assert np.isfinite(found.confidence_N).all()
    np.testing.assert_array_equal(found.ids_N[labels >= 0], labels[labels >= 0])
    assert found.ids_N.max() < found.num_classes <= number


def test_the_number_needs_known_classes_to_hide():
    features, labels, _ = _clusters()
    with pytest.raises(ValueError, match='at least 4 known classes'):
        feature_discovery(features, np.where(labels < 2, labels, -1))
