"""Bars in groups: how several models do on several data sets."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from mmkd_ext.visualization import style

__all__ = ['grouped_bars_figure']

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
    axes.grid(axis='y', color=style.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc='outside lower center', ncols=min(4, len(values)))
    style.set_titles(figure, title, subtitle)
    return figure
