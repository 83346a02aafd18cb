import numpy as np

from mmkd_ext.visualization import confusion_figure
from mmkd_ext.visualization.figures import style

NAMES = ['ant', 'bee', 'cat', 'dog']
OUTPUTS = ['ant', 'bee', 'cluster 0', 'cluster 1']


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labels_of(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_columns_are_in_matched_order_and_colour_is_the_share_of_the_row():
    labels = np.array([0, 0, 1, 2, 2, 2, 3, 3])
    outputs = np.array([0, 0, 1, 3, 3, 2, 2, 2])
    figure = confusion_figure(labels, outputs, NAMES, OUTPUTS, 2, title='Pets')
    axes = figure.axes[0]
    assert labels_of(axes.yaxis) == NAMES
    assert labels_of(axes.xaxis) == ['ant', 'bee', 'cluster 1', 'cluster 0']
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2 / 3, 1 / 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert sorted(texts(axes)) == sorted(['2', '1', '2', '1', '2', 'known', 'novel'])
    assert [text.get_text() for text in figure.texts] == ['Pets', '87.5% on the diagonal, 8 images, 4 true classes']


def test_axes_are_named():
    axes = confusion_figure(np.array([0, 3]), np.array([0, 2]), NAMES, OUTPUTS, 2, title='').axes[0]
    assert axes.get_ylabel() == 'true class'
    assert axes.get_xlabel() == 'model output, in matched order'


def test_only_classes_that_occur_are_shown():
    axes = confusion_figure(np.array([2, 2, 3]), np.array([2, 2, 3]), NAMES, OUTPUTS, 2, title='').axes[0]
    assert labels_of(axes.yaxis) == ['cat', 'dog']
    assert 'known' not in texts(axes)


def test_unmatched_clusters_come_last():
    labels, outputs = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 3, 2, 2])
    axes = confusion_figure(labels, outputs, NAMES, OUTPUTS, 2, title='').axes[0]
    assert labels_of(axes.xaxis) == ['ant', 'cluster 0', 'cluster 1']


def test_hundred_classes_thin_out_labels_and_counts():
    rng = np.random.default_rng(0)
    labels, names = rng.integers(0, 100, 4000), [f'class number {c}' for c in range(100)]
    figure = confusion_figure(labels, labels, names, names, 50, title='Many')
    axes = figure.axes[0]
    assert len(axes.get_yticks()) <= 40
    assert texts(axes) == ['known', 'novel']
    picture = style.to_array(figure)
    assert picture.dtype == np.uint8
    assert max(picture.shape) < 2000
