"""The folder that a person opens at the end of discovery: numbers, figures, and the page that explains both."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

from mmkd_ext.scores.cluster_accuracy import UNMATCHED
from mmkd_ext.visualization.discovery import Discovery, SplitView
from mmkd_ext.visualization.figures import style
from mmkd_ext.visualization.figures.charts import curves_figure
from mmkd_ext.visualization.figures.confusion import confusion_figure
from mmkd_ext.visualization.figures.embedding_map import embedding_map_figure, project
from mmkd_ext.visualization.figures.gallery import GalleryImage, GalleryRow, gallery_figure, pick_rows
from mmkd_ext.visualization.history import CurveHistory

_MEANING = {
    'novel_acc': 'Images of novel classes whose cluster is matched with their class; the novel head alone decides.',
    'novel_nmi': 'Information shared by clusters and novel classes.',
    'novel_ari': 'Pairs of images on which clusters and novel classes agree, beyond chance.',
    'v2_all': 'All images, known and novel classes compete, one matching for all outputs (v2).',
    'v2_known': 'Of the same matching: images of known classes.',
    'v2_novel': 'Of the same matching: images of novel classes.',
    'v1_all': 'One matching for all outputs; equals v2 by definition.',
    'v1_known': 'Known classes without matching (v1).',
    'v1_novel': 'Novel classes matched on their own (v1).',
    'v3_all': 'Known classes without matching, novel clusters matched with novel classes (v3).',
    'v3_known': 'Known classes without matching.',
    'v3_novel': 'Novel clusters matched with novel classes only (v3).',
    'all_nmi': 'Information shared by outputs and classes.',
    'all_ari': 'Pairs of images on which outputs and classes agree, beyond chance.',
}
"""Last part of a metric key -> what it means; in the order of the report."""

_CAPTIONS = {
    'confusion': 'How each true class spreads over the outputs. A perfect discovery is a dark diagonal.',
    'gallery': 'What each discovered class looks like: its most and its least confident images. Framed: wrong.',
    'embedding_map': 'Where images lie in the embedding. Where discovery is right, both panels have the same colours.',
    'curves': 'The course of training.',
}


def write_metrics(path: Path, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write numbers and settings as JSON.

    Args:
        path: File to write.
        metrics: Metric key -> percent, or percents of all heads.
        settings: What the numbers belong to.
    """
    path.write_text(json.dumps({'metrics': dict(metrics), 'settings': dict(settings)}, indent=2, default=float) + '\n')


def write_assignments(path: Path, discovery: Discovery) -> None:
    """Write one line per sample: where it was put, and where it belongs.

    Args:
        path: CSV file to write.
        discovery: What was discovered.
    """
    names, outputs = discovery.class_names, discovery.output_names
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['sample_idx', 'split', 'cluster', 'matched_class', 'confidence', 'true_class'])
        for split in discovery.splits:
            view = discovery.view(split)
            columns = (view.positions, view.outputs, view.confidence, view.labels)
            for position, output, confidence, label in zip(*(c.tolist() for c in columns), strict=True):
                matched = view.matched_C[output]
                matched_name = '' if matched == UNMATCHED else names[matched]
                sample_idx = discovery.assignments[position].sample_idx
                writer.writerow([sample_idx, split, outputs[output], matched_name, f'{confidence:.4f}', names[label]])


def _summary_rows(metrics: Mapping[str, Any], split: str) -> list[str]:
    rows = []
    for key, meaning in _MEANING.items():
        mean, best = metrics.get(f'{split}/{key}'), metrics.get(f'{split}/{key}_best')
        if mean is not None and best is not None:
            rows.append(f'| `{key}` | {mean:.2f} | {best:.2f} | {meaning} |')
    return rows


def write_markdown(
    path: Path,
    discovery: Discovery,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    pictures: Sequence[str],
) -> None:
    """Write the report that a person opens.

    Args:
        path: Markdown file to write, beside the pictures.
        discovery: What was discovered.
        metrics: Results of ``NovelClassMetric``.
        settings: What the numbers belong to.
        pictures: File names of the pictures, in order.
    """
    lines = [f'# Discovery report: {settings["config"]}', '']
    num_novel = len(discovery.class_names) - discovery.num_known
    lines.append(
        f'Known classes: {discovery.num_known}. Novel classes: {num_novel}. Clusters: {discovery.num_clusters}. '
        'Numbers are percent. The best head is the one with the lowest training objective: '
        'labels have no part in the choice.'
    )
    for split in discovery.splits:
        if rows := _summary_rows(metrics, split):
            num_images = sum(assignment.split == split for assignment in discovery.assignments)
            lines += ['', f'## {split}: {num_images} images', '']
            lines += ['| number | mean over heads | best head | meaning |', '|---|---:|---:|---|', *rows]
    lines += ['', '## Pictures', '', 'Drawn for the best head.']
    for picture in pictures:
        stem = Path(picture).stem
        kind = next(kind for kind in _CAPTIONS if stem.startswith(kind))
        lines += ['', f'![{stem}]({picture})', '', f'*{_CAPTIONS[kind]}*']
    lines += ['', '## Settings', '', '| setting | value |', '|---|---|']
    lines += [f'| {name} | `{value}` |' for name, value in settings.items()]
    lines += ['', '`assignments.csv` lists every image with its cluster; `metrics.json` holds all numbers.', '']
    path.write_text('\n'.join(lines))


def console_summary(discovery: Discovery, metrics: Mapping[str, Any], folder: Path) -> str:
    """Say in a few lines what was discovered.

    Args:
        discovery: What was discovered.
        metrics: Results of ``NovelClassMetric``.
        folder: Where the report is.

    Returns:
        str: One line per split, the clusters without images if any, and the path of the report.
    """
    lines = ['Discovery finished']
    for split in discovery.splits:
        view = discovery.view(split)
        key = 'novel_acc' if view.is_task_aware else 'v2_all'
        right = (view.matched_C[view.outputs] == view.labels).mean()
        text = f'  {split}: {right:.1%} of {len(view.labels)} images in the right class (best head)'
        if (mean := metrics.get(f'{split}/{key}')) is not None:
            text += f', {mean:.1f}% as mean over heads'
        lines.append(text)
        empty = [c for c in range(discovery.num_known, view.counts_TC.shape[1]) if not view.counts_TC[:, c].any()]
        if empty:
            lines.append(f'  {split}: {len(empty)} of {discovery.num_clusters} clusters are empty')
    lines.append(f'  Report: {folder / "report.md"}')
    return '\n'.join(lines)


# --------------------------------------------------------------------------------------------------
# Figures.

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


# --------------------------------------------------------------------------------------------------
# The folder.


def write_problem(folder: Path) -> str | None:
    """Try whether a report can be written, before hours of training.

    Args:
        folder: Folder, made if it does not exist.

    Returns:
        str: What goes wrong; ``None`` if nothing does.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return str(error)


def write_report(
    folder: Path,
    discovery: Discovery,
    *,
    split: str,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    history: CurveHistory,
    images_per_class: int,
    read_image: ReadImage,
    show: Callable[[str, np.ndarray], None],
) -> None:
    """Write numbers, then pictures, then the page that explains both.

    Args:
        folder: Existing folder.
        discovery: What was discovered.
        split: Split whose clusters the report is about.
        metrics: Results of ``NovelClassMetric``.
        settings: What the numbers belong to (``run_settings``).
        history: Points of the training curves.
        images_per_class: Images per row of the gallery.
        read_image: Gives the pixels of a sample.
        show: Called with the name and the pixels of each picture, RGB, uint8, (height, width, 3).
    """
    write_metrics(folder / 'metrics.json', metrics, settings)
    write_assignments(folder / 'assignments.csv', discovery)
    figures = dict(report_figures(discovery, split, images_per_class=images_per_class, read_image=read_image))
    curves = history_figure(history, f'Training: {settings["config"]}')
    if curves is not None:
        figures['curves'] = curves
    for name, figure in figures.items():
        pixels = style.to_array(figure)
        imsave(folder / f'{name}.png', pixels, dpi=style.DPI)
        show(name, pixels)
    write_markdown(folder / 'report.md', discovery, metrics, settings, [f'{name}.png' for name in figures])
