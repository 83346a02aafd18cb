import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from mmkd_ext.visualization import embedding_map_figure, project
from mmkd_ext.visualization.figures import style

NAMES = ['ant', 'bee', 'cat', 'dog']


def blobs(points=120, dims=6, classes=4):
    rng = np.random.default_rng(0)
    labels = np.arange(points) % classes
    return rng.normal(size=(classes, dims))[labels] * 4 + 0.1 * rng.normal(size=(points, dims)), labels


def test_groups_of_directions_stay_together():
    embeddings, labels = blobs()
    lengths = np.random.default_rng(1).uniform(0.1, 10, (len(labels), 1))
    points = project(embeddings * lengths)
    assert points.shape == (120, 2)
    assert KNeighborsClassifier(3).fit(points, labels).score(points, labels) == 1


def test_map_is_reproducible():
    embeddings, _ = blobs(40)
    np.testing.assert_array_equal(project(embeddings), project(embeddings))


@pytest.mark.parametrize('shape', [(1, 4), (2, 1), (7, 3), (9, 1)])
def test_few_points_or_dims(shape):
    points = project(np.random.default_rng(0).normal(size=shape))
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def test_zero_and_half_precision_embeddings():
    embeddings = np.zeros((12, 3), dtype=np.float16)
    embeddings[:6, 0] = 1
    assert np.isfinite(project(embeddings)).all()


def figure_of(points=60, num_samples=60):
    _, labels = blobs(points)
    xy = np.random.default_rng(0).normal(size=(points, 2)) + 9 * np.stack([labels % 2, labels // 2], axis=1)
    discovered = labels.copy()
    discovered[:6] = -1
    discovered[6] = (labels[6] + 1) % 4
    return embedding_map_figure(xy, labels, discovered, NAMES, 2, num_samples=num_samples, title='Pets')


def test_two_panels_with_all_points_and_names():
    figure = figure_of()
    left, right = figure.axes
    assert left.get_title('left') == 'True class'
    assert right.get_title('left') == 'Discovered class (11.7% wrong, ringed)'
    assert sum(len(points.get_offsets()) for points in left.collections) == 60
    for axes in (left, right):
        assert {text.get_text() for text in axes.texts} == set(NAMES)
    weights = {text.get_text(): text.get_weight() for text in left.texts}
    assert weights == {'ant': 'normal', 'bee': 'normal', 'cat': 'bold', 'dog': 'bold'}
    rings = right.collections[-1]
    assert len(rings.get_offsets()) == 7


def test_subtitle_tells_what_was_drawn():
    assert '60 of 900 images, drawn at random' in figure_of(num_samples=900).texts[1].get_text()
    assert '; filled and bold: novel, open: known' in figure_of().texts[1].get_text()


def test_names_of_many_classes_do_not_touch():
    rng = np.random.default_rng(0)
    labels, names = np.arange(1000) % 100, [f'class number {c}' for c in range(100)]
    xy = rng.normal(size=(100, 2))[labels] * 10 + 0.1 * rng.normal(size=(1000, 2))
    figure = embedding_map_figure(xy, labels, labels, names, 50, num_samples=1000, title='')
    style.to_array(figure)
    boxes = [text.get_window_extent().shrunk(0.9, 0.7) for text in figure.axes[0].texts]
    assert 10 < len(boxes) < 100
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
