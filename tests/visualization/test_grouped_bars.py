import itertools

import pytest

from mmkd_ext.visualization import grouped_bars_figure
from mmkd_ext.visualization.figures import style

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


@pytest.mark.parametrize('num_rows', [1, 2, 5])
def test_bars_stand_side_by_side_in_their_group(num_rows):
    axes = draw({f'model {i}': {'a': 1.0 + i, 'b': 2.0} for i in range(num_rows)}).axes[0]
    for group in range(2):
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


def test_can_be_rendered():
    assert style.to_array(draw(VALUES)).shape[2] == 3
