"""The words and tables of a discovery report: metrics.json, assignments.csv, report.md and the console summary."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmkd_ext.visualization.discovery import Discovery
from mmkd_ext.visualization.matching import UNMATCHED

__all__ = ['console_summary', 'write_assignments', 'write_markdown', 'write_metrics']

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
