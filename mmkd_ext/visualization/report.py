"""Writes the folder that a person opens at the end of discovery."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from mmkd_ext.visualization import style
from mmkd_ext.visualization.discovery import Discovery
from mmkd_ext.visualization.history import CurveHistory
from mmkd_ext.visualization.report_figures import ReadImage, history_figure, report_figures
from mmkd_ext.visualization.report_text import write_assignments, write_markdown, write_metrics

__all__ = ['write_problem', 'write_report']


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
        settings: What the numbers belong to (:func:`run_settings`).
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
