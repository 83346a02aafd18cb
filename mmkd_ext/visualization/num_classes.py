"""How the number of classes was estimated: both opinions over the numbers tried."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkd_ext.functional.num_classes import NumClasses
from mmkd_ext.visualization import style

__all__ = ['num_classes_figure']


@style.styled
def num_classes_figure(found: NumClasses) -> Figure:
    """Draw labelled accuracy, if there is one, above silhouette, with two standard errors and the estimate.

    Args:
        found: From :func:`mmkd_ext.functional.estimate_num_classes`.

    Returns:
        Figure: One or two panels over one axis of numbers of classes.
    """
    numbers = [point.num_classes for point in found.curve]
    has_accuracy = found.by_accuracy is not None
    figure = style.new_figure(4.6, 4.2 if has_accuracy else 2.6)
    panels = figure.subplots(1 + has_accuracy, sharex=True, squeeze=False)[:, 0]
    if has_accuracy:
        accuracy = [100 * point.accuracy for point in found.curve]
        _draw(panels[0], numbers, accuracy, [200 * point.accuracy_se for point in found.curve], found.estimate, 0)
        panels[0].axvspan(min(found.admissible) - 0.5, max(found.admissible) + 0.5, color=style.GRID, zorder=0)
        panels[0].set_ylabel('labelled accuracy (%)')
    silhouette = [point.silhouette for point in found.curve]
    _draw(panels[-1], numbers, silhouette, [2 * point.silhouette_se for point in found.curve], found.estimate, 2)
    panels[-1].set_ylabel('silhouette')
    panels[-1].set_xlabel('number of classes, known ones included')
    subtitle = f'{found.num_known} known and {found.num_novel} novel'
    style.set_titles(
        figure,
        f'{found.estimate} classes',
        f'{subtitle}; grey: admissible by labelled accuracy; bars: two standard errors' if has_accuracy else subtitle,
    )
    return figure


def _draw(
    axes: Axes, numbers: Sequence[int], values: Sequence[float], errors: Sequence[float], estimate: int, colour: int
) -> None:
    axes.errorbar(numbers, values, errors, color=style.class_colour(colour), marker='o', markersize=3, linewidth=1)
    axes.axvline(estimate, color=style.MUTED, linewidth=0.8, linestyle='--')
    axes.set_xscale('log')
    axes.set_xticks(numbers, numbers, size=style.SMALL)
    axes.minorticks_off()
    axes.grid(axis='y', color=style.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
