"""The number of classes, on blobs whose number is known."""

import json

import numpy as np
import pytest
from scipy.stats import ortho_group

from mmkd_ext.clustering.num_classes import NumClasses, estimate_num_classes


def blobs(num_classes, size=25, num_dims=24, spread=0.08, seed=0):
    """Features around orthogonal directions, of random length, and their classes."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(num_classes), size)
    centres = ortho_group.rvs(num_dims, random_state=seed)[:num_classes]
    features = centres[true] + spread * rng.normal(size=(len(true), num_dims))
    return features * rng.uniform(0.5, 5, size=(len(true), 1)), true


def split(true, num_known, fraction=1.0):
    """Labels of the first classes, of every sample or a fraction of each class; -1 elsewhere."""
    is_labelled = (true < num_known) & (np.random.default_rng(0).random(len(true)) < fraction)
    return np.where(is_labelled, true, -1)


@pytest.mark.parametrize(('num_classes', 'num_known'), [(4, 2), (7, 4), (10, 5), (16, 8), (5, 4)])
def test_finds_the_number_of_blobs(num_classes, num_known):
    features, true = blobs(num_classes)
    found = estimate_num_classes(features, split(true, num_known), num_repeats=4, max_classes=24)
    assert found.estimate == num_classes
    assert found.by_silhouette == num_classes
    assert found.num_known == num_known
    assert found.num_novel == num_classes - num_known
    assert num_classes in found.admissible


def test_unlabelled_images_may_be_of_known_classes_and_there_may_be_no_novel_ones():
    features, true = blobs(8)
    assert estimate_num_classes(features, split(true, 4, 0.5), num_repeats=4, max_classes=20).estimate == 8
    assert estimate_num_classes(features, split(true, 8, 0.5), num_repeats=4, max_classes=20).num_novel == 0


def test_labelled_accuracy_judges_where_the_silhouette_is_misled():
    # Pairs of near classes look like one blob each; labels know better.
    rng = np.random.default_rng(0)
    pairs = ortho_group.rvs(24, random_state=0)
    centres = np.concatenate([pairs[:6] + 0.25 * pairs[6:12], pairs[:6] - 0.25 * pairs[6:12]])
    true = np.repeat(np.arange(12), 40)
    features = centres[true] + 0.05 * rng.normal(size=(480, 24))
    # Known are both of three pairs; the others are to be found.
    order = np.array([0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11])
    true = np.argsort(order)[true]
    found = estimate_num_classes(features, split(true, 6), num_repeats=6, max_classes=24)
    assert found.by_silhouette == 6
    assert min(found.admissible) > 6
    assert max(found.admissible) >= 12
    assert found.estimate in found.admissible


@pytest.mark.parametrize('num_known', [0, 1])
def test_without_probes_the_silhouette_decides_alone(num_known):
    features, true = blobs(6)
    found = estimate_num_classes(features, split(true, num_known), num_repeats=3, max_classes=15)
    assert found.estimate == found.by_silhouette == 6
    assert found.by_accuracy is None
    assert all(np.isnan(point.accuracy) for point in found.curve)
    assert found.admissible == tuple(point.num_classes for point in found.curve)


def test_the_search_ends_with_neighbours_on_both_sides():
    features, true = blobs(14, size=15)
    told = []
    found = estimate_num_classes(features, split(true, 3), num_repeats=2, max_classes=60, progress=told.append)
    numbers = [point.num_classes for point in found.curve]
    assert numbers == sorted(set(numbers))
    assert {found.estimate - 1, found.estimate + 1} <= set(numbers)
    assert len(numbers) < 40
    assert sorted(told, key=lambda point: point.num_classes) == list(found.curve)


def test_many_novel_classes_for_few_known_ones_are_found():
    features, true = blobs(36, size=6, num_dims=40, spread=0.05)
    found = estimate_num_classes(features, split(true, 2), num_repeats=2)
    assert found.estimate == 36
    assert not found.at_edge
    assert found.curve[-1].num_classes > 36 > 28  # 4 K + 20


def test_an_estimate_at_the_edge_says_so():
    features, true = blobs(12, size=10)
    with pytest.warns(UserWarning, match='the edge: there are at least so many classes; raise max_classes'):
        found = estimate_num_classes(features, split(true, 2), num_repeats=2, max_classes=6)
    assert found.at_edge
    assert found.estimate == found.curve[-1].num_classes == 6
    assert json.loads(json.dumps(found.to_dict()))['at_edge'] is True
    assert NumClasses.from_dict(found.to_dict()) == found


def test_that_nothing_is_new_is_no_edge(recwarn):
    features, true = blobs(4)
    found = estimate_num_classes(features, split(true, 4, 0.5), num_repeats=2, max_classes=9)
    assert (found.num_novel, found.at_edge) == (0, False)
    assert not [w for w in recwarn if 'edge' in str(w.message)]


def test_a_part_of_the_samples_keeps_all_classes():
    features, true = blobs(10, size=200)
    found = estimate_num_classes(features, split(true, 5), num_repeats=3, max_classes=20, max_samples=400)
    assert found.estimate == 10
    assert found.num_known == 5


def test_depends_on_the_seed_alone():
    features, true = blobs(6, spread=0.25)
    labels = split(true, 3)
    first, again, other = (
        estimate_num_classes(features, labels, num_repeats=2, max_classes=9, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.filterwarnings('ignore:Number of distinct clusters')
def test_collapsed_features_give_a_number_and_no_nan():
    found = estimate_num_classes(np.ones((40, 3)), split(np.repeat(np.arange(4), 10), 2), num_repeats=2, max_classes=6)
    assert 2 <= found.estimate <= 6
    assert all(np.isfinite(point.silhouette) for point in found.curve)


@pytest.mark.parametrize('num_known', [1, 3])
def test_comes_back_from_json(num_known):
    features, true = blobs(5)
    found = estimate_num_classes(features, split(true, num_known), num_repeats=2, max_classes=7)
    text = json.dumps(found.to_dict(), allow_nan=False)
    again = NumClasses.from_dict(json.loads(text))
    assert (again.estimate, again.num_novel, again.admissible) == (found.estimate, found.num_novel, found.admissible)
    assert np.isnan(again.curve[0].accuracy) == (num_known < 2)
    assert json.dumps(again.to_dict()) == text


def test_errors():
    features, true = blobs(4)
    labels = split(true, 2)
    with pytest.raises(ValueError, match=r'expected max_classes from 2 to 52 but got 1; there are 2 known classes'):
        estimate_num_classes(features, labels, max_classes=1)
    with pytest.raises(ValueError, match='but got 99'):
        estimate_num_classes(features, labels, max_classes=99)
    with pytest.raises(ValueError, match='unlabelled ones among them, but got 100 of which 0 are unlabelled'):
        estimate_num_classes(features, true)
    with pytest.raises(ValueError, match='expected num_repeats >= 2 and max_samples >= 3 but got 1 and 5000'):
        estimate_num_classes(features, labels, num_repeats=1)
    with pytest.raises(ValueError, match='without gaps'):
        estimate_num_classes(features, np.where(labels == 1, 3, labels))
    with pytest.raises(ValueError, match='finite features'):
        estimate_num_classes(np.full_like(features, np.nan), labels)
