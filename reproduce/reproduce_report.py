"""The report of ``reproduce.py``: one JSON file, one Markdown table, one picture of the curves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave
from scipy.stats import sem

from mmkd_ext.visualization import curves_figure
from mmkd_ext.visualization.figures import style
from reproduce_log import is_finished, result
from reproduce_recipe import Run, Settings
from tables import Table

NOT_RUN = 'not run yet'
SMOKE = '**Smoke: tiny data and networks, to try the tool out. The numbers mean nothing.**'


def summarise(name: str, table: Table, runs: list[Run], settings: Settings) -> dict[str, Any]:
    """Collect the results of all finished runs.

    Args:
        name: Name of the table.
        table: The table.
        runs: Its runs, finished or not.
        settings: What they have in common.

    Returns:
        dict: What the JSON file holds; ``rows`` has one dict per row, with ``mean`` and ``standard_error`` over seeds
        (None without, or with one seed) and the results of each seed in ``runs``.
    """
    stages = {stage.row for run in runs for stage in run.stages}
    rows = []
    for row in table.rows:
        metric = row.metric or table.metric
        of_row = [run for run in runs if run.row == row]
        results = {str(run.seed): result(run, metric) for run in of_row if is_finished(run)}
        mean, error = mean_and_error([one['value'] for one in results.values()])
        rows.append(
            {
                'name': row.name,
                'config': f'configs/{row.config}',
                'metric': metric,
                'epochs': of_row[0].epochs,
                'recipe_epochs': of_row[0].recipe_epochs,
                'is_stage': row in stages,
                'published': row.published,
                'remark': row.remark,
                'mean': mean,
                'standard_error': error,
                'runs': results,
            }
        )
    return {
        'table': name,
        'title': table.title,
        'metric': table.metric,
        'metric_name': table.metric_name,
        'settings': settings._asdict(),
        'rows': rows,
    }


def mean_and_error(values: list[float]) -> tuple[float | None, float | None]:
    """Return mean and standard error of the mean, as far as there are values enough."""
    if not values:
        return None, None
    return float(np.mean(values)), float(sem(values)) if len(values) > 1 else None


def markdown(summary: dict[str, Any]) -> str:
    """Return the table, with a line on how it was made."""
    lines = [f'## {summary["title"]}', '']
    if summary['settings']['smoke']:
        lines += [SMOKE, '']
    conditions = _conditions(summary)
    if conditions:
        lines += [conditions, '']
    lines += [
        f'| | {summary["metric_name"]} | epochs | published | seconds | images per second |',
        '|---' * 6 + '|',
        *(_line(row) for row in summary['rows']),
    ]
    remarks = [f'- {row["name"]}: {row["remark"]}.' for row in summary['rows'] if row['remark']]
    return '\n'.join([*lines, '', *remarks, ''])


def _conditions(summary: dict[str, Any]) -> str:
    results = [one for row in summary['rows'] for one in row['runs'].values()]
    machines = sorted({f'{one["device"]}, torch {one["torch"]}, runs at a time: {one["jobs"]}' for one in results})
    options = [name for name in ('bf16', 'compile', 'channels_last') if summary['settings'][name]]
    return '; '.join([*machines, *options])


def _line(row: dict[str, Any]) -> str:
    results = list(row['runs'].values())
    published = ', '.join(f'{value:g} ({source})' for value, source in row['published'])
    cells = [row['name'], _value(row), f'{row["epochs"]} of {row["recipe_epochs"]}', published or '-']
    cells += [
        f'{np.mean([one[key] for one in results]):,.0f}' if results else '-' for key in ('seconds', 'images_per_second')
    ]
    return '| ' + ' | '.join(cells) + ' |'


def _value(row: dict[str, Any]) -> str:
    if row['mean'] is None:
        return NOT_RUN
    values = ', '.join(f'seed {seed}: {one["value"]:.1f}' for seed, one in row['runs'].items())
    error = '' if row['standard_error'] is None else f' ± {row["standard_error"]:.2f}'
    return f'{row["mean"]:.2f}{error} ({values})'


def curves(summary: dict[str, Any], kind: str) -> dict[str, list[tuple[int, float]]]:
    """Return the mean over seeds of the curves of all rows but those that others build on.

    Args:
        summary: Of :func:`summarise`.
        kind: ``'curve'`` or ``'losses'``.
    """
    series = {}
    for row in summary['rows']:
        of_seeds = [one[kind] for one in row['runs'].values()]
        if of_seeds and not row['is_stage']:
            series[row['name']] = [
                (int(epoch), float(np.mean([one[epoch] for one in of_seeds]))) for epoch in of_seeds[0]
            ]
    return series


def write(summary: dict[str, Any], out: Path) -> None:
    """Write ``<table>.json``, ``<table>.md`` and, as soon as a run is finished, ``<table>.png``.

    Args:
        summary: Of :func:`summarise`.
        out: The folder, which is there.
    """
    path = out / summary['table']
    path.with_suffix('.json').write_text(f'{json.dumps(summary, indent=1)}\n')
    path.with_suffix('.md').write_text(markdown(summary))
    metrics = curves(summary, 'curve')
    if metrics:
        title = f'{summary["table"]}{" (smoke)" if summary["settings"]["smoke"] else ""}'
        figure = curves_figure(curves(summary, 'losses'), metrics, progress_name='epoch', title=title)
        imsave(path.with_suffix('.png'), style.to_array(figure), dpi=style.DPI)
