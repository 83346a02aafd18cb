"""Rows of evaluation images: what a discovered cluster holds, and what an embedding finds next to a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch.utils.data import Dataset

from mmkd_ext.pictures import shrink
from mmkd_ext.visualization.discovery import Assignment
from mmkd_ext.visualization.figures import style

_MAX_SIDE = 96
"""Pixels; more than a gallery can show."""


def thumbnail(dataset: Dataset, position: int, assignment: Assignment, *, is_bgr: bool) -> np.ndarray:
    """Read an evaluation image again and make it small.

    Args:
        dataset: The evaluation data; items have ``inputs`` (1 or 3, h, w) in 0..255 and ``data_samples``.
        position: Position of the image in it.
        assignment: What was predicted at this position.
        is_bgr: Whether its channels are in the order blue, green, red.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3), longer side at most 96 pixels.

    Raises:
        RuntimeError: Another sample is at this position, so the data was evaluated in another order.
    """
    item = dataset[position]
    sample = item['data_samples']
    found = (int(sample.get('sample_idx', -1)), sample.get('split_name'))
    expected = (assignment.sample_idx, assignment.split)
    if found != expected:
        raise RuntimeError(
            f'DiscoveryReportHook: expected sample {expected} at position {position} of the evaluation data but got '
            f'{found}; evaluate with DefaultSampler(shuffle=False)'
        )
    return small_picture(item['inputs'], is_bgr=is_bgr)


def small_picture(image: torch.Tensor, *, is_bgr: bool) -> np.ndarray:
    """Make a picture of an image tensor, small enough for a gallery.

    Args:
        image: Shape (1 or 3, h, w), values 0..255.
        is_bgr: Whether its channels are in the order blue, green, red.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3), longer side at most 96 pixels.
    """
    image = (image.flip(0) if is_bgr else image).expand(3, -1, -1).float().round().clamp(0, 255)
    pixels = image.to(torch.uint8).permute(1, 2, 0).numpy()
    return np.array(shrink(Image.fromarray(pixels), _MAX_SIDE))


# --------------------------------------------------------------------------------------------------
# What both kinds of rows are made of.

_CELL = 1.0
_PITCH = 1.12
_ROW_HEIGHT = 1.34


@dataclass(frozen=True)
class GalleryImage:
    """One picture of the gallery.

    Attributes:
        pixels: RGB, uint8, (height, width, 3).
        true_class: Name of the true class.
        is_wrong: Whether the true class differs from the class matched with the cluster.
    """

    pixels: np.ndarray
    true_class: str
    is_wrong: bool


def _draw_image(axes: Axes, image: GalleryImage, x: float, y: float, colour: str | None, linewidth: float) -> None:
    """Draw the pixels with a frame of this colour, if any."""
    interpolation = 'nearest' if max(image.pixels.shape[:2]) <= 64 else 'antialiased'
    axes.imshow(image.pixels, extent=(x, x + _CELL, y + _CELL, y), interpolation=interpolation)
    if colour is not None:
        axes.add_patch(Rectangle((x, y), _CELL, _CELL, fill=False, edgecolor=colour, linewidth=linewidth))


def _write_name(axes: Axes, name: str, x: float, y: float, colour: str, longest: int) -> None:
    """Write the class below an image, cut where it would touch the next."""
    short = name if len(name) <= longest else f'{name[: longest - 1]}…'
    axes.text(x + _CELL / 2, y + _CELL + 0.04, short, size=5.5, color=colour, ha='center', va='top')


# --------------------------------------------------------------------------------------------------
# Gallery: what the members of each discovered cluster look like.

_BLOCK_GAP = 0.7
_CLUSTER_WIDTH = 3.6
_LONGEST_IN_GALLERY = 10


@dataclass(frozen=True)
class GalleryRow:
    """One discovered cluster.

    Attributes:
        name: Name of the cluster.
        matched_class: Name of the class that the cluster is matched with.
        purity: Share of its members that belong to the matched class, in [0, 1].
        size: Number of its members.
        most_confident: Members with the highest confidence, best first.
        least_confident: Members with the lowest confidence, lowest last.
    """

    name: str
    matched_class: str
    purity: float
    size: int
    most_confident: Sequence[GalleryImage]
    least_confident: Sequence[GalleryImage]


def pick_rows(purities: np.ndarray, max_rows: int) -> np.ndarray:
    """Choose the clusters that a gallery shows.

    Args:
        purities: Purity of each cluster, (N,).
        max_rows: Most clusters to show.

    Returns:
        np.ndarray: Indices of clusters: all in their own order if they fit, otherwise ``max_rows`` of them evenly
        spread over the ranking from the purest to the least pure.
    """
    if len(purities) <= max_rows:
        return np.arange(len(purities))
    ranking = np.argsort(-purities, kind='stable')
    return ranking[np.linspace(0, len(ranking) - 1, max_rows).round().astype(int)]


def _draw_cluster(axes: Axes, row: GalleryRow, top: float, second_block: float) -> None:
    middle = top + _CELL / 2
    axes.text(0, middle - 0.06, row.matched_class, size=style.BODY + 1, weight='bold', va='bottom')
    members = f'{row.name}: {row.purity:.0%} of {row.size} images'
    axes.text(0, middle + 0.06, members, size=style.SMALL, color=style.MUTED, va='top')
    for start, images in ((_CLUSTER_WIDTH, row.most_confident), (second_block, row.least_confident)):
        for index, image in enumerate(images):
            x = start + index * _PITCH
            _draw_image(axes, image, x, top, style.WRONG if image.is_wrong else None, 1.4)
            if image.is_wrong:
                _write_name(axes, image.true_class, x, top, style.WRONG, _LONGEST_IN_GALLERY)


@style.styled
def gallery_figure(rows: Sequence[GalleryRow], *, num_clusters: int, title: str) -> Figure:
    """Draw one row of images per discovered cluster.

    The most confident members show what the cluster is about, the least confident ones where it frays. A framed image
    belongs to another class, whose name is written below it.

    Args:
        rows: Clusters to show (:func:`pick_rows`).
        num_clusters: How many clusters there are; when more than rows, the figure says so.
        title: What the samples are.

    Returns:
        Figure: One panel.
    """
    most = max(len(row.most_confident) for row in rows)
    least = max(len(row.least_confident) for row in rows)
    second_block = _CLUSTER_WIDTH + most * _PITCH + _BLOCK_GAP
    width = second_block + least * _PITCH
    height = len(rows) * _ROW_HEIGHT + 0.9
    scale = 7.4 / width
    figure = style.new_figure(7.4 + 0.2, height * scale + 0.6)
    axes = figure.subplots()
    for index, row in enumerate(rows):
        _draw_cluster(axes, row, index * _ROW_HEIGHT, second_block)
    style.blank(axes)
    axes.set(xlim=(0, width), ylim=(height - 0.5, -0.4), aspect='equal')
    axes.text(_CLUSTER_WIDTH, -0.12, 'most confident', size=style.SMALL, color=style.MUTED, va='bottom')
    if least:
        axes.text(second_block, -0.12, 'least confident', size=style.SMALL, color=style.MUTED, va='bottom')
    legend_top = len(rows) * _ROW_HEIGHT + 0.02
    axes.add_patch(Rectangle((0.03, legend_top), 0.3, 0.3, fill=False, edgecolor=style.WRONG, linewidth=1.4))
    legend = 'true class (written below) differs from the class matched with the cluster'
    axes.text(0.45, legend_top + 0.15, legend, size=style.SMALL, color=style.MUTED, va='center')
    subtitle = 'One row per cluster: matched class, share of its images that belong to that class'
    if len(rows) < num_clusters:
        subtitle = f'{len(rows)} of {num_clusters} clusters, evenly spread from the purest to the least pure'
    style.set_titles(figure, title, subtitle)
    return figure


# --------------------------------------------------------------------------------------------------
# Queries and their nearest neighbours, right and wrong marked, models one above the other.

_QUERY_GAP = 0.25
_MODEL_WIDTH = 1.5
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
    left = _PITCH + _QUERY_GAP + _MODEL_WIDTH
    width = left + most * _PITCH
    block = len(models) * _ROW_HEIGHT + _QUERY_GAP
    height = len(rows) * block + 0.5
    scale = min(0.62, 7.4 / width)
    figure = style.new_figure(max(width * scale, 4.6) + 0.2, height * scale + 0.6)
    axes = figure.subplots()
    for index, row in enumerate(rows):
        _draw_query(axes, row, index * block, left)
    style.blank(axes)
    axes.set(xlim=(0, width), ylim=(height - 0.4, -0.2), aspect='equal')
    style.set_titles(figure, title, 'Left the query, right its nearest images: green same class, vermilion another')
    return figure


def _draw_query(axes: Axes, row: NeighbourRow, top: float, left: float) -> None:
    middle = top + (len(row.found) - 1) * _ROW_HEIGHT / 2
    _draw_image(axes, row.query, 0, middle, style.MUTED, 0.6)
    _write_name(axes, row.query.true_class, 0, middle, style.TEXT, _LONGEST_NAME)
    for line, (model, images) in enumerate(row.found.items()):
        y = top + line * _ROW_HEIGHT
        axes.text(left - 0.15, y + _CELL / 2, model, size=style.BODY, color=style.MUTED, ha='right', va='center')
        for rank, image in enumerate(images):
            x = left + rank * _PITCH
            _draw_image(axes, image, x, y, style.WRONG if image.is_wrong else _RIGHT, 1.8 if image.is_wrong else 0.8)
            if image.is_wrong:
                _write_name(axes, image.true_class, x, y, style.WRONG, _LONGEST_NAME)
