"""Run recipes, stages included, over several seeds and print mean and standard error of their final metrics.

    python reproduce/run_seeds.py configs/uno/uno_convnet_80e_digits.py configs/crkd/crkd_convnet_80e_digits.py \
        --seeds 0 1 2 --metrics unlabelled_train/novel_acc test/v2_all

With ``--baselines`` every recipe is also compared, seed by seed, with some of the others. Finished runs are kept: the
same command goes on where it stopped. Results also go to work_dirs/seeds.json.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
from scipy.stats import sem

from mmkd_ext.cli.train import train
from mmkd_ext.io import read_scalars
from mmkd_ext.models.build import read_config

Runs = dict[int, dict[str, float]]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--metrics', nargs='+', required=True, help='names as the final validation prints them')
    parser.add_argument('--baselines', nargs='+', default=[], help='config files, of those named, to compare with')
    parser.add_argument('--out', default='work_dirs/seeds.json', help='where all metrics of all runs go')
    args = parser.parse_args()
    strangers = sorted(set(args.baselines) - set(args.configs))
    if strangers:
        parser.error(f'--baselines: expected some of the configs to run but got {strangers}')
    return args


def final_metrics(config: str, seed: int) -> dict[str, float]:
    """Train one recipe with one seed, unless it is finished, and read the metrics of its last validation.

    Raises:
        RuntimeError: The training failed, or ended without a validation after its last epoch or iteration.
    """
    work_dir = Path('work_dirs', f'{Path(config).stem}-seed{seed}')
    loop = read_config(config).train_cfg
    end = loop.get('max_epochs') or loop['max_iters']
    metrics = read_metrics(work_dir, end)
    if metrics is None:
        train_in_child(config, seed)
        metrics = read_metrics(work_dir, end)
    if metrics is None:
        raise RuntimeError(f'{config}: expected metrics of step {end} in {work_dir} but found none; set val_interval')
    return metrics


def read_metrics(work_dir: Path, end: int) -> dict[str, float] | None:
    """Return the metrics of the report, or those that were logged after the last epoch (iteration); None without."""
    report = work_dir / 'report' / 'metrics.json'
    if report.is_file():
        return json.loads(report.read_text())['metrics']
    for values in reversed(read_scalars(work_dir)):
        if values.pop('step') == end and 'lr' not in values:
            return {name: value for name, value in values.items() if name not in ('time', 'data_time')}
    return None


def train_in_child(config: str, seed: int) -> None:
    """Train in a forked process, which finds the libraries loaded but nothing of earlier runs.

    Raises:
        RuntimeError: The training failed; its traceback is on stderr.
    """
    scope = read_config(config).get('default_scope')
    if scope not in (None, 'mmengine'):
        importlib.import_module(f'{scope}.models')
    child = multiprocessing.get_context('fork').Process(target=_train, args=(config, seed))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f'{config}, seed {seed}: expected the training to end well but got code {child.exitcode}')


def _train(config: str, seed: int) -> None:
    stdout = 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    train([config, '--with-teacher', '--resume', '--seed', str(seed)])


def table(results: dict[str, Runs], metrics: list[str], baselines: list[str]) -> str:
    """Markdown: one row per recipe, mean ± standard error (one value per seed), then differences to each baseline."""
    heads = [head for metric in metrics for head in [metric, *(f'- {Path(base).stem}' for base in baselines)]]
    lines = ['| config | ' + ' | '.join(heads) + ' |', '|---' * (len(heads) + 1) + '|']
    for config, runs in results.items():
        cells = [
            cell
            for metric in metrics
            for cell in [_cell(runs, metric), *(_difference(runs, results[base], metric) for base in baselines)]
        ]
        lines.append(f'| {Path(config).stem} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _cell(runs: Runs, metric: str) -> str:
    values = np.array([run[metric] for run in runs.values()])
    return f'{values.mean():.2f} ± {_standard_error(values):.2f} ({", ".join(f"{value:.1f}" for value in values)})'


def _difference(runs: Runs, base: Runs, metric: str) -> str:
    if runs is base:
        return ''
    values = np.array([run[metric] - base[seed][metric] for seed, run in runs.items()])
    return f'{values.mean():+.2f} ± {_standard_error(values):.2f}'


def _standard_error(values: np.ndarray) -> float:
    return sem(values) if len(values) > 1 else float('nan')


def main() -> None:
    """Entry point."""
    args = parse_args()
    results: dict[str, Runs] = {}
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    for config in args.configs:
        for seed in args.seeds:
            results.setdefault(config, {})[seed] = final_metrics(config, seed)
            print(f'{Path(config).stem} seed {seed}: done', file=sys.stderr, flush=True)
            Path(args.out).write_text(json.dumps(results, indent=1))
    print(table(results, args.metrics, args.baselines))


if __name__ == '__main__':
    main()
