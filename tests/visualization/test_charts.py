"""Curves and bars."""

import itertools

import numpy as np
import pytest

from mmkd_ext.clustering.num_classes import CurvePoint, NumClasses
from mmkd_ext.visualization import curves_figure, grouped_bars_figure, num_classes_figure
from mmkd_ext.visualization.figures import style

# --------------------------------------------------------------------------------------------------
# Curves.


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


# --------------------------------------------------------------------------------------------------
# Bars in groups.


VALUES = {'teacher': {'cars': 77.2, 'cub': 40.0}, 'student': {'cars': 82.5, 'cub': 31.5}}


def draw(values):
    return grouped_bars_figure(values, value_name='recall@1 (%)', title='Retrieval', subtitle='bars')


def test_each_number_is_a_bar_of_its_height():
    axes = draw(VALUES).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[77.2, 40.0], [82.5, 31.5]]
    assert {text.get_text() for text in axes.texts} == {'77.2', '40.0', '82.5', '31.5'}
    assert [label.get_text() for label in axes.get_xticklabels()] == ['cars', 'cub']
    assert axes.get_ylim()[0] == 0


def test_bars_stand_side_by_side_in_their_group():
    for num_rows, group in itertools.product((1, 2, 5), range(2)):
        axes = draw({f'model {i}': {'a': 1.0 + i, 'b': 2.0} for i in range(num_rows)}).axes[0]
        edges = sorted((bars[group].get_x(), bars[group].get_x() + bars[group].get_width()) for bars in axes.containers)
        assert group - 0.5 < edges[0][0]
        assert edges[-1][1] < group + 0.5
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(edges))


def test_legend_names_the_rows_in_their_colours():
    figure = draw(VALUES)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ['teacher', 'student']
    colours = [bars[0].get_facecolor() for bars in figure.axes[0].containers]
    assert [patch.get_facecolor() for patch in legend.get_patches()] == colours


# --------------------------------------------------------------------------------------------------
# The number of classes.


NUMBERS, ACCURACY, SILHOUETTE = (4, 6, 8, 12), (0.5, 0.9, 0.95, 0.6), (0.1, 0.3, 0.4, 0.2)


def found(has_accuracy=True):
    nan = float('nan')
    curve = tuple(
        CurvePoint(number, accuracy if has_accuracy else nan, 0.02 if has_accuracy else nan, silhouette, 0.01)
        for number, accuracy, silhouette in zip(NUMBERS, ACCURACY, SILHOUETTE, strict=True)
    )
    return NumClasses(8, 3, 8 if has_accuracy else None, 8, (6, 8) if has_accuracy else NUMBERS, curve)


def test_both_opinions_are_drawn_over_the_numbers_tried():
    figure = num_classes_figure(found())
    accuracy, silhouette = figure.axes
    assert accuracy.lines[0].get_xdata().tolist() == list(NUMBERS)
    assert accuracy.lines[0].get_ydata() == pytest.approx([100 * value for value in ACCURACY])
    assert silhouette.lines[0].get_ydata() == pytest.approx(SILHOUETTE)
    assert [label.get_text() for label in silhouette.get_xticklabels()] == [str(number) for number in NUMBERS]
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == '8 classes'
    assert texts[1].startswith('3 known and 5 novel')


def test_bars_reach_two_standard_errors():
    (bars,) = num_classes_figure(found()).axes[0].collections[:1]
    low, high = bars.get_segments()[1][:, 1]
    assert (low, high) == pytest.approx((86, 94))


def test_without_probes_there_is_one_panel():
    (axes,) = num_classes_figure(found(has_accuracy=False)).axes
    assert axes.get_ylabel() == 'silhouette'


def test_figures_can_be_rendered():
    for figure in (draw(VALUES), num_classes_figure(found())):
        assert style.to_array(figure).shape[2] == 3
