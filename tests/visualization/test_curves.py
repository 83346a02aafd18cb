import numpy as np
import pytest

from mmkd_ext.visualization import curves_figure
from mmkd_ext.visualization.figures import style


def line(values):
    return [(float(step), float(value)) for step, value in enumerate(values)]


def test_one_panel_each_for_losses_and_metrics():
    losses = {'loss_cluster': line([3, 2, 1]), 'loss_crkd': line([2, 1, 0.5])}
    figure = curves_figure(losses, {'test all': line([50, 70, 90])}, progress_name='epoch', title='Run')
    upper, lower = figure.axes
    assert [axes.get_ylabel() for axes in (upper, lower)] == ['training loss', 'evaluation (%)']
    assert lower.get_xlabel() == 'epoch'
    assert [curve.get_label() for curve in upper.lines] == ['loss_cluster', 'loss_crkd']
    np.testing.assert_array_equal(lower.lines[0].get_xydata(), [[0, 50], [1, 70], [2, 90]])
    assert [text.get_text() for text in upper.texts] == ['loss_cluster  1', 'loss_crkd  0.5']


def test_labels_keep_their_distance_and_their_colour():
    metrics = {f'metric {i}': line([0, 99 + 0.01 * i]) for i in range(6)}
    axes = curves_figure({}, metrics, progress_name='epoch', title='').axes[0]
    heights = [text.get_position()[1] for text in axes.texts]
    assert (np.diff(heights) > 0.06).all()
    assert min(heights) >= 0
    assert max(heights) <= 1
    assert [text.get_color() for text in axes.texts] == [curve.get_color() for curve in axes.lines]


def test_one_validation_is_still_visible():
    figure = curves_figure({}, {'test all': [(80.0, 97.5)]}, progress_name='epoch', title='')
    assert figure.axes[0].lines[0].get_marker() == 'o'
    assert style.to_array(figure).min() < 200


def test_nothing_to_draw():
    with pytest.raises(ValueError, match='expected losses or metrics but got neither'):
        curves_figure({}, {}, progress_name='epoch', title='')
