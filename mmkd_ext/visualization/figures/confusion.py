"""Confusion picture: true classes against discovered clusters, columns in matched order.

Shape suffixes: R classes that occur (rows), S clusters that are shown (columns), T true classes, C outputs.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mmkd_ext.scores.cluster_accuracy import UNMATCHED, contingency_table, match_clusters
from mmkd_ext.visualization.figures import style

_SHARE = LinearSegmentedColormap.from_list('share', ['#ffffff', '#c9d9ea', '#6f9bc8', '#2b5f9e', '#12335f'])
_MOST_CELLS_WITH_COUNTS = 20
_MOST_TICK_LABELS = 34


def _columns(matched_C: np.ndarray, rows: np.ndarray, used_C: np.ndarray) -> np.ndarray:
    """Clusters in the order of their classes, then those without a class that hold samples."""
    cluster_of = {int(matched): cluster for cluster, matched in enumerate(matched_C) if matched != UNMATCHED}
    columns = [cluster_of[row] for row in rows.tolist() if row in cluster_of]
    return np.array(columns + [c for c in np.flatnonzero(used_C).tolist() if c not in columns])


def _write_counts(axes: Axes, counts_RS: np.ndarray, share_RS: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts_RS):
        if count:
            colour = 'white' if share_RS[row, column] > 0.45 else style.TEXT
            axes.text(column, row, f'{count}', ha='center', va='center', size=style.SMALL, color=colour)


def _ticks(names: Sequence[str]) -> tuple[range, list[str]]:
    """Positions and texts of tick labels, thinned out evenly when they would touch."""
    step = -(-len(names) // _MOST_TICK_LABELS)
    positions = range(0, len(names), step)
    return positions, [names[position] for position in positions]


def _separate(axes: Axes, num_known_rows: int, num_known_columns: int, shape: tuple[int, int]) -> None:
    """Draw the border between known and novel, and name both sides at the right edge."""
    if not 0 < num_known_rows < shape[0]:
        return
    axes.axhline(num_known_rows - 0.5, color=style.TEXT, linewidth=0.8)
    axes.axvline(num_known_columns - 0.5, color=style.TEXT, linewidth=0.8)
    for name, middle in (('known', num_known_rows / 2), ('novel', (num_known_rows + shape[0]) / 2)):
        position = (1.02, 1 - middle / shape[0])
        axes.text(*position, name, rotation=270, ha='left', va='center', transform=axes.transAxes, color=style.MUTED)


@style.styled
def confusion_figure(
    labels: np.ndarray,
    clusters: np.ndarray,
    class_names: Sequence[str],
    output_names: Sequence[str],
    num_known: int,
    *,
    title: str,
) -> Figure:
    """Draw how the samples of each true class spread over the model's outputs.

    A perfect discovery is a dark diagonal. Rows are the true classes that occur; columns are the outputs, each below
    the class that the Hungarian method matches it with, unmatched ones last. Colour is the share of the row.

    Args:
        labels: True classes, known first, ints in [0, T), (samples,).
        clusters: Assigned outputs, ints in [0, C), (samples,); novel cluster ``j`` is output ``num_known + j``.
        class_names: Names of the T true classes.
        output_names: Names of the C outputs.
        num_known: Number of known classes K.
        title: What the samples are.

    Returns:
        Figure: One panel with a colour bar.
    """
    counts_TC = contingency_table(labels, clusters, len(class_names), len(output_names))
    matched_C = match_clusters(counts_TC)
    rows = np.flatnonzero(counts_TC.sum(axis=1))
    columns = _columns(matched_C, rows, counts_TC.sum(axis=0))
    counts_RS = counts_TC[np.ix_(rows, columns)]
    share_RS = counts_RS / counts_RS.sum(axis=1, keepdims=True)

    side = float(np.clip(0.36 * len(rows), 3.2, 6.4))
    figure = style.new_figure(side + 1.5, side + 1.4)
    axes = figure.subplots()
    image = axes.imshow(share_RS, cmap=_SHARE, vmin=0, vmax=1, aspect='auto', interpolation='nearest')
    axes.spines[:].set_visible(True)
    if max(counts_RS.shape) <= _MOST_CELLS_WITH_COUNTS:
        _write_counts(axes, counts_RS, share_RS)
    axes.set_yticks(*_ticks([class_names[row] for row in rows.tolist()]))
    axes.set_xticks(*_ticks([output_names[column] for column in columns.tolist()]), rotation=90)
    axes.set(xlabel='model output, in matched order', ylabel='true class')
    is_known_column = (matched_C[columns] != UNMATCHED) & (matched_C[columns] < num_known)
    _separate(axes, int((rows < num_known).sum()), int(is_known_column.sum()), share_RS.shape)
    bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.06, ticks=[0, 0.5, 1], format=lambda x, _: f'{x:.0%}')
    bar.set_label('share of the true class')
    bar.outline.set_visible(False)
    agreement = (matched_C[clusters] == labels).mean()
    style.set_titles(figure, title, f'{agreement:.1%} on the diagonal, {len(labels)} images, {len(rows)} true classes')
    return figure
