"""What an embedding finds: queries and their nearest neighbours, right and wrong marked, models one above the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmkd_ext.visualization.figures import style
from mmkd_ext.visualization.figures.gallery import GalleryImage

__all__ = ['NeighbourRow', 'neighbours_figure']

_CELL = 1.0
_PITCH = 1.12
_LINE = 1.34
_QUERY_GAP = 0.25
_NAME_WIDTH = 1.5
_RIGHT = style.PALETTE[2]
_LONGEST_NAME = 12


@dataclass(frozen=True)
class NeighbourRow:
    """One query.

    Attributes:
        query: The image that was searched with.
        found: Name of a model -> its nearest neighbours, nearest first; those of another class than the query's are
            wrong.
    """

    query: GalleryImage
    found: Mapping[str, Sequence[GalleryImage]]


@style.styled
def neighbours_figure(rows: Sequence[NeighbourRow], *, title: str) -> Figure:
    """Draw each query with a line of neighbours per model.

    Neighbours of the query's class have a thin green frame, others a thick vermilion one and their class below.

    Args:
        rows: The queries, at least one, all with the same models.
        title: What was searched.

    Returns:
        Figure: One panel.
    """
    models = list(rows[0].found)
    most = max(len(images) for row in rows for images in row.found.values())
    left = _PITCH + _QUERY_GAP + _NAME_WIDTH
    width = left + most * _PITCH
    block = len(models) * _LINE + _QUERY_GAP
    height = len(rows) * block + 0.5
    scale = min(0.62, 7.4 / width)
    figure = style.new_figure(max(width * scale, 4.6) + 0.2, height * scale + 0.6)
    axes = figure.subplots()
    for index, row in enumerate(rows):
        _draw_row(axes, row, index * block, left)
    style.blank(axes)
    axes.set(xlim=(0, width), ylim=(height - 0.4, -0.2), aspect='equal')
    style.set_titles(figure, title, 'Left the query, right its nearest images: green same class, vermilion another')
    return figure


def _draw_row(axes: Axes, row: NeighbourRow, top: float, left: float) -> None:
    middle = top + (len(row.found) - 1) * _LINE / 2
    _draw_image(axes, row.query, 0, middle, style.MUTED, 0.6)
    _write_name(axes, row.query.true_class, 0, middle, style.TEXT)
    for line, (model, images) in enumerate(row.found.items()):
        y = top + line * _LINE
        axes.text(left - 0.15, y + _CELL / 2, model, size=style.BODY, color=style.MUTED, ha='right', va='center')
        for rank, image in enumerate(images):
            x = left + rank * _PITCH
            _draw_image(axes, image, x, y, style.WRONG if image.is_wrong else _RIGHT, 1.8 if image.is_wrong else 0.8)
            if image.is_wrong:
                _write_name(axes, image.true_class, x, y, style.WRONG)


def _draw_image(axes: Axes, image: GalleryImage, x: float, y: float, colour: str, linewidth: float) -> None:
    interpolation = 'nearest' if max(image.pixels.shape[:2]) <= 64 else 'antialiased'
    axes.imshow(image.pixels, extent=(x, x + _CELL, y + _CELL, y), interpolation=interpolation)
    axes.add_patch(Rectangle((x, y), _CELL, _CELL, fill=False, edgecolor=colour, linewidth=linewidth))


def _write_name(axes: Axes, name: str, x: float, y: float, colour: str) -> None:
    short = name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'
    axes.text(x + _CELL / 2, y + _CELL + 0.04, short, size=5.5, color=colour, ha='center', va='top')
