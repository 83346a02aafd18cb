"""Charts: training curves, bars in groups, and how the number of classes was estimated."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkd_ext.clustering.num_classes import NumClasses
from mmkd_ext.visualization.figures import style

Series = Mapping[str, Sequence[Sequence[float]]]
"""Name of a curve -> its points (progress, value)."""

_LINE_HEIGHT = 0.062
"""Smallest distance of two labels, as a share of the panel's height."""


def _spread(positions: Sequence[float], distance: float) -> np.ndarray:
    """Move labels apart to at least ``distance`` within [0, 1], keeping order and, where possible, place."""
    order = np.argsort(positions, kind='stable')
    wanted = np.asarray(positions, dtype=float)[order] - distance * np.arange(len(order))
    wanted = wanted.clip(0, max(0, 1 - distance * (len(order) - 1)))
    blocks: list[list[float]] = []
    for value in wanted:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    placed = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    result = np.empty(len(order))
    result[order] = placed + distance * np.arange(len(order))
    return result


def _draw_series(axes: Axes, series: Series) -> None:
    """Draw each curve with its name and last value beside its end."""
    ends = []
    for index, (name, points) in enumerate(series.items()):
        progress, values = np.asarray(points, dtype=float).T
        colour = style.PALETTE[(0, 4, 2, 3, 6, 9, 8, 7, 5, 1)[index % len(style.PALETTE)]]
        marker = 'o' if len(values) <= 20 else None
        axes.plot(progress, values, color=colour, linewidth=1.4, marker=marker, markersize=3, label=name)
        ends.append((name, values[-1], colour))
    bottom, top = axes.get_ylim()
    heights = [(value - bottom) / (top - bottom) for _, value, _ in ends]
    for (name, value, colour), height in zip(ends, _spread(heights, _LINE_HEIGHT), strict=True):
        text = f'{name}  {value:.4g}'
        axes.text(1.02, height, text, color=colour, size=style.BODY, va='center', transform=axes.transAxes)


@style.styled
def curves_figure(losses: Series, metrics: Series, *, progress_name: str, title: str) -> Figure:
    """Draw losses in one panel and metrics in another, below each other on one time axis.

    Args:
        losses: Mean training losses.
        metrics: Evaluation results in percent.
        progress_name: Name of the horizontal axis, 'epoch' or 'iteration'.
        title: What was trained.

    Returns:
        Figure: One panel for each of the two that is not empty.

    Raises:
        ValueError: If there is nothing to draw.
    """
    panels = [(series, label) for series, label in ((losses, 'training loss'), (metrics, 'evaluation (%)')) if series]
    if not panels:
        raise ValueError('curves_figure: expected losses or metrics but got neither; pass at least one curve')
    figure = style.new_figure(6.4, 0.8 + 2.1 * len(panels))
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (series, label) in zip(all_axes, panels, strict=True):
        style.grid(axes)
        _draw_series(axes, series)
        axes.set_ylabel(label)
    all_axes[-1].set_xlabel(progress_name)
    figure.align_ylabels()
    style.set_titles(figure, title, 'Losses: mean over the iterations since the previous point')
    return figure


# --------------------------------------------------------------------------------------------------
# Bars in groups: how several models do on several data sets.

_GROUP_WIDTH = 0.84


@style.styled
def grouped_bars_figure(
    values: Mapping[str, Mapping[str, float]], *, value_name: str, title: str, subtitle: str
) -> Figure:
    """Draw a group of bars per column and in it a bar per row, each with its number.

    Args:
        values: Row (a colour, such as a model) -> column (a group, such as a data set) -> number >= 0. All rows have
            the same columns.
        value_name: Label of the axis of numbers, with its unit.
        title: What is compared.
        subtitle: What one needs to know to read it.

    Returns:
        Figure: One panel.
    """
    columns = list(next(iter(values.values())))
    width = _GROUP_WIDTH / len(values)
    figure = style.new_figure(max(4.2, 1.4 + 0.42 * len(columns) * (len(values) + 1)), 3.2)
    axes = figure.subplots()
    for index, (row, numbers) in enumerate(values.items()):
        centres = [group + (index - (len(values) - 1) / 2) * width for group in range(len(columns))]
        heights = [numbers[column] for column in columns]
        bars = axes.bar(centres, heights, 0.92 * width, color=style.class_colour(index), label=row)
        axes.bar_label(bars, fmt='%.1f', padding=1.5, size=style.SMALL, color=style.MUTED)
    axes.set_xticks(range(len(columns)), columns)
    axes.tick_params(axis='x', length=0)
    axes.set_ylabel(value_name)
    axes.set_ylim(bottom=0)
    style.grid(axes, 'y')
    figure.legend(loc='outside lower center', ncols=min(4, len(values)))
    style.set_titles(figure, title, subtitle)
    return figure


# --------------------------------------------------------------------------------------------------
# How the number of classes was estimated: both opinions over the numbers tried.


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
    axes.set_xticks(numbers, [str(number) for number in numbers], size=style.SMALL)
    axes.minorticks_off()
    style.grid(axes, 'y')
