"""What a run of ``reproduce.py`` has left in its work folder."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from mmengine.config import Config

from mmkd_ext.io import read_scalars
from reproduce_recipe import Run

PIECES = 'pieces.jsonl'
"""One line per piece of a run: its seconds and the machine."""


def validations(work_dir: Path) -> dict[int, dict[str, float]]:
    """Return the metrics by epoch; of a validation that was repeated, the last."""
    lines = [line for line in read_scalars(work_dir) if 'lr' not in line]
    return {
        line['step']: {name: value for name, value in line.items() if name not in ('step', 'time', 'data_time')}
        for line in lines
    }


def is_finished(run: Run) -> bool:
    """Whether the checkpoint of the last epoch and its validation are there."""
    return run.checkpoint.is_file() and run.epochs in validations(run.work_dir)


def result(run: Run, metric: str) -> dict[str, Any]:
    """Return what a report says about a finished run.

    Args:
        run: The run.
        metric: The metric to compare.

    Returns:
        dict: ``value`` of the metric after the last epoch and all ``metrics`` of it; by epoch of each validation, the
        ``curve`` of the metric and ``losses``, the mean since the one before; ``seconds``, with start and validation;
        ``images_per_second`` of the training alone; ``device``, ``torch``, and how many ``jobs`` shared it.

    Raises:
        KeyError: The validation has no such metric.
    """
    by_epoch = validations(run.work_dir)
    last = by_epoch[run.epochs]
    if metric not in last:
        raise KeyError(f'{run.name}: expected the metric {metric!r} but got {sorted(last)}; correct tables.py')
    training = [line for line in read_scalars(run.work_dir) if 'lr' in line]
    pieces = [json.loads(line) for line in (run.work_dir / PIECES).read_text().splitlines()]
    batch_size = Config.fromfile(run.config).train_dataloader.batch_size
    return {
        'value': last[metric],
        'metrics': last,
        'curve': {str(epoch): round(by_epoch[epoch][metric], 4) for epoch in sorted(by_epoch)},
        'losses': _mean_losses(training, sorted(by_epoch)),
        'seconds': round(sum(piece['seconds'] for piece in pieces), 1),
        'images_per_second': round(batch_size / median(line['time'] for line in training), 1),
        'device': pieces[-1]['device'],
        'torch': pieces[-1]['torch'],
        'jobs': max(piece['jobs'] for piece in pieces),
    }


def _mean_losses(training: list[dict[str, Any]], epochs: list[int]) -> dict[str, float]:
    """Return, for each of these epochs, the mean over those since the one before."""
    of_epoch = {line['epoch']: line['loss'] for line in training}  # the last line of an epoch has the mean of it
    means = {}
    for before, epoch in pairwise([0, *epochs]):
        losses = [of_epoch[number] for number in range(before + 1, epoch + 1)]
        means[str(epoch)] = round(sum(losses) / len(losses), 4)
    return means
