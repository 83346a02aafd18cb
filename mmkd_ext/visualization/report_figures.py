"""The figures of a discovery report."""

from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from mmkd_ext.visualization.confusion import confusion_figure
from mmkd_ext.visualization.curves import curves_figure
from mmkd_ext.visualization.discovery import Discovery, SplitView
from mmkd_ext.visualization.embedding_map import embedding_map_figure, project
from mmkd_ext.visualization.gallery import GalleryImage, GalleryRow, gallery_figure, pick_rows
from mmkd_ext.visualization.history import CurveHistory
from mmkd_ext.visualization.matching import UNMATCHED

__all__ = ['history_figure', 'report_figures']

_MAX_GALLERY_ROWS = 20

_CURVE_NAMES = {
    'novel_acc': 'novel (task-aware)',
    'v2_all': 'all',
    'v2_known': 'known',
    'v2_novel': 'novel',
    'known_acc': 'known',
}
"""Last part of a metric key -> name of its curve."""

ReadImage = Callable[[int], np.ndarray]
"""Position in the evaluation data set -> RGB picture, uint8, (height, width, 3)."""


def report_figures(
    discovery: Discovery, split: str, *, images_per_class: int, read_image: ReadImage
) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of what was discovered.

    Args:
        discovery: What was discovered.
        split: Split whose clusters the report is about: its confusion comes first, and the gallery shows it.
        images_per_class: Images per row of the gallery, two thirds most and one third least confident.
        read_image: Gives the pixels of a sample.

    Yields:
        Name without suffix, and figure: ``confusion`` for ``split``, ``confusion_<name>`` for other splits,
        ``gallery``, and ``embedding_map`` of the first split that holds known classes, too, if there is one.
    """
    views = {name: discovery.view(name) for name in discovery.splits}
    for name in (split, *(name for name in views if name != split)):
        yield 'confusion' if name == split else f'confusion_{name}', _confusion(discovery, views[name])
    gallery = _gallery(discovery, views[split], images_per_class, read_image)
    if gallery is not None:
        yield 'gallery', gallery
    mixed = next((view for view in views.values() if not view.is_task_aware), views[split])
    yield 'embedding_map', _embedding_map(discovery, mixed)


def history_figure(history: CurveHistory, title: str) -> Figure | None:
    """Draw the curves of a training run.

    Args:
        history: Points of the curves.
        title: What was trained.

    Returns:
        Figure: Losses and metrics; ``None`` if there are none, as for a test without training.
    """
    losses = dict(history.losses)
    if len(losses) == 2:
        losses.pop('loss', None)  # the sum of a single term says nothing new
    metrics = {}
    for key, points in history.metrics.items():
        split, _, name = key.rpartition('/')
        metrics[f'{split} {_CURVE_NAMES[name]}'.strip()] = points
    if not losses and not metrics:
        return None
    return curves_figure(losses, metrics, progress_name=history.progress_name, title=title)


def _task(view: SplitView) -> str:
    return 'novel head alone' if view.is_task_aware else 'known and novel classes'


def _confusion(discovery: Discovery, view: SplitView) -> Figure:
    return confusion_figure(
        view.labels,
        view.outputs,
        discovery.class_names,
        discovery.output_names,
        discovery.num_known,
        title=f'Discovered and true classes: {view.name}, {_task(view)}',
    )


def _gallery(discovery: Discovery, view: SplitView, images_per_class: int, read_image: ReadImage) -> Figure | None:
    """Draw the novel clusters that hold samples, in the order of their classes; ``None`` if all are empty."""
    sizes_C = view.counts_TC.sum(axis=0)
    clusters = [c for c in range(discovery.num_known, len(sizes_C)) if sizes_C[c]]
    if not clusters:
        return None
    clusters.sort(key=lambda c: (view.matched_C[c] == UNMATCHED, view.matched_C[c]))
    shown = pick_rows(view.purity_C[clusters], _MAX_GALLERY_ROWS)
    rows = [_gallery_row(discovery, view, clusters[i], images_per_class, read_image) for i in shown.tolist()]
    return gallery_figure(rows, num_clusters=len(clusters), title=f'Discovered classes: {view.name}')


def _gallery_row(
    discovery: Discovery, view: SplitView, cluster: int, images_per_class: int, read_image: ReadImage
) -> GalleryRow:
    members = np.flatnonzero(view.outputs == cluster)
    members = members[np.argsort(-view.confidence[members], kind='stable')]
    num_most = -(-2 * images_per_class // 3)
    num_least = min(images_per_class - num_most, max(0, len(members) - num_most))
    matched = int(view.matched_C[cluster])

    def images(chosen: np.ndarray) -> list[GalleryImage]:
        labels, positions = view.labels[chosen].tolist(), view.positions[chosen].tolist()
        return [
            GalleryImage(read_image(position), discovery.class_names[label], label != matched)
            for label, position in zip(labels, positions, strict=True)
        ]

    return GalleryRow(
        discovery.output_names[cluster],
        'no class left' if matched == UNMATCHED else discovery.class_names[matched],
        float(view.purity_C[cluster]),
        len(members),
        images(members[:num_most]),
        images(members[len(members) - num_least :]),
    )


def _embedding_map(discovery: Discovery, view: SplitView) -> Figure:
    positions, embeddings = discovery.embeddings[view.name]
    rows = np.searchsorted(view.positions, positions)
    return embedding_map_figure(
        project(embeddings),
        view.labels[rows],
        view.matched_C[view.outputs[rows]],
        discovery.class_names,
        discovery.num_known,
        num_samples=len(view.labels),
        title=f'Embedding map: {view.name}',
    )
