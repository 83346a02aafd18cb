"""Training curves: losses and metrics over the course of training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkd_ext.visualization import style

Series = Mapping[str, Sequence[tuple[float, float]]]
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
        axes.grid(color=style.GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        _draw_series(axes, series)
        axes.set_ylabel(label)
    all_axes[-1].set_xlabel(progress_name)
    figure.align_ylabels()
    style.set_titles(figure, title, 'Losses: mean over the iterations since the previous point')
    return figure
