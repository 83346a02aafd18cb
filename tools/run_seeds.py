"""Run recipes, stages included, over several seeds and print mean and standard error of their final metrics.

    python tools/run_seeds.py configs/uno/uno_convnet_80e_digits.py configs/crkd/crkd_convnet_80e_digits.py \
        --seeds 0 1 2 --metrics unlabelled_train/novel_acc test/v2_all

Finished runs are kept: the same command goes on where it stopped. Results also go to work_dirs/seeds.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

TRAIN = Path(__file__).with_name('train.py')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', help='config files with a DiscoveryReportHook')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--metrics', nargs='+', required=True, help='names as the final validation prints them')
    parser.add_argument('--out', default='work_dirs/seeds.json', help='where all metrics of all runs go')
    return parser.parse_args()


def final_metrics(config: str, seed: int) -> dict[str, float]:
    """Train one recipe with one seed, unless it is finished, and read the metrics of its report."""
    report = Path('work_dirs', f'{Path(config).stem}-seed{seed}', 'report', 'metrics.json')
    if not report.is_file():
        command = [sys.executable, str(TRAIN), config, '--with-teacher', '--resume', '--seed', str(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(report.read_text())['metrics']


def table(results: dict[str, dict[int, dict[str, float]]], metrics: list[str]) -> str:
    """Markdown: one row per recipe, ``mean +- standard error (one value per seed)`` in percent."""
    lines = ['| config | ' + ' | '.join(metrics) + ' |', '|---' * (len(metrics) + 1) + '|']
    for config, runs in results.items():
        cells = []
        for metric in metrics:
            values = np.array([run[metric] for run in runs.values()])
            error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float('nan')
            each = ', '.join(f'{value:.1f}' for value in values)
            cells.append(f'{values.mean():.2f} ± {error:.2f} ({each})')
        lines.append(f'| {Path(config).stem} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    """Entry point."""
    args = parse_args()
    results: dict[str, dict[int, dict[str, float]]] = {}
    for config in args.configs:
        for seed in args.seeds:
            results.setdefault(config, {})[seed] = final_metrics(config, seed)
            print(f'{Path(config).stem} seed {seed}: done', file=sys.stderr, flush=True)
            Path(args.out).write_text(json.dumps(results, indent=1))
    print(table(results, args.metrics))


if __name__ == '__main__':
    main()
