import pytest

from mmkd_ext.clustering.num_classes import CurvePoint, NumClasses
from mmkd_ext.visualization import num_classes_figure
from mmkd_ext.visualization.figures import style

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


def test_can_be_rendered():
    assert style.to_array(num_classes_figure(found())).shape[2] == 3
