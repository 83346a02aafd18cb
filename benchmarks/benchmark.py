"""Measure everything that is meant to be fast: losses, discovery, a training step, the data path of discovery.

    OMP_NUM_THREADS=1 python benchmarks/benchmark.py --out docs/results/performance.json \
        --plot docs/images/performance.png
    python benchmarks/benchmark.py losses step --device cuda
    python benchmarks/benchmark.py --sizes tiny

Every function of the package and the published form of it (``tests/oracles``) run in turn in one process, and what is
printed is the ratio of their medians: CPU time, or wall-clock time on a GPU; memory is the peak of a fresh process, or
what torch allocates on a GPU. Groups and cases that are not measured stay in the JSON file as they are.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from benchmark_cases import DISCOVERY, LOSSES, build_call, path_of, published_bytes
from benchmark_data import measure_data
from benchmark_measure import describe_machine, milliseconds, peak_mib
from benchmark_plot import plot_losses
from benchmark_step import measure_step

SIZES = {
    'full': {
        'batch': [64, 256, 512, 1024],
        'dims': [64, 512, 2048],
        'Sinkhorn': [(128, 50), (256, 50), (512, 100), (4096, 1000)],
        'class-relation KD': [(512, 50), (1024, 1000)],
        'swapped prediction': [(512, 100)],
        'accuracy + NMI + ARI': [(50_000, 100)],
        'Recall@1, 2, 4, 8': [(5000, 100)],
        **{case: [(16, 768)] for case in DISCOVERY if case.startswith('patches')},
        'step': 256,
        'data': 5120,
    },
    'tiny': {
        'batch': [8, 16],
        'dims': [16],
        **{case: [(16, 5)] for case in DISCOVERY},
        'step': 4,
        'data': 512,
    },
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('groups', nargs='*', help=f'some of {", ".join(GROUPS)}; all when none is named')
    parser.add_argument(
        '--cases', nargs='+', default=[''], help='parts of the names of losses and functions to compare'
    )
    parser.add_argument('--sizes', choices=SIZES, default='full')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=1, help='of torch on the CPU')
    parser.add_argument('--seconds', type=float, default=2.0, help='time for each comparison')
    parser.add_argument(
        '--memory-limit', type=float, default=4.0, help='GiB; published forms that need more are skipped'
    )
    parser.add_argument('--no-memory', action='store_true', help='measure time only')
    parser.add_argument('--out', type=Path, help='JSON file')
    parser.add_argument('--plot', type=Path, help='PNG file')
    args = parser.parse_args()
    unknown = set(args.groups) - set(GROUPS)
    if unknown:
        parser.error(f'expected groups of {list(GROUPS)} but got {sorted(unknown)}; leave out for all')
    return args


def measure_losses(args: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """Yield one row per loss, batch and dimension."""
    sizes = SIZES[args.sizes]
    for case in chosen(LOSSES, args):
        for batch in sizes['batch']:
            for dims in sizes['dims']:
                fits = published_bytes(case, batch, dims) <= args.memory_limit * 2**30
                yield compare(args, device, case, {'batch': batch, 'dims': dims}, with_published=fits)


def measure_discovery(args: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """Yield one row per function and size."""
    for case in chosen(DISCOVERY, args):
        for rows, classes in SIZES[args.sizes][case]:
            yield compare(args, device, case, {'rows': rows, 'classes': classes})


def measure_training_step(args: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """Yield what the relations add to a step."""
    yield measure_step(SIZES[args.sizes]['step'], args.seconds, device)


def measure_data_path(args: argparse.Namespace, device: torch.device) -> Iterator[dict]:
    """Yield images per second of each data path."""
    yield from measure_data(SIZES[args.sizes]['data'], device)


GROUPS: dict[str, Callable[[argparse.Namespace, torch.device], Iterator[dict]]] = {
    'losses': measure_losses,
    'discovery': measure_discovery,
    'step': measure_training_step,
    'data': measure_data_path,
}


def chosen(cases: Iterable[str], args: argparse.Namespace) -> list[str]:
    """The cases that the command line asks for."""
    return [case for case in cases if any(part in case for part in args.cases)]


def compare(
    args: argparse.Namespace, device: torch.device, case: str, size: dict[str, int], *, with_published: bool = True
) -> dict:
    """Time and memory of the published form and of ours."""
    sides = ('published', 'ours') if with_published else ('ours',)
    settings = {side: dict(name=case, which=side, device=str(device), **size) for side in sides}
    calls = [build_call(**settings[side]) for side in sides]
    row: dict = {'case': case, 'size': size, 'path': path_of(case, device), 'published_ms': None}
    row.update(
        {f'{side}_ms': time for side, time in zip(sides, milliseconds(calls, args.seconds, device), strict=True)}
    )
    if not args.no_memory:
        row.update({f'{side}_mib': peak_mib(build_call, settings[side], device) for side in sides})
    return row


def line(row: dict) -> str:
    """One line of the printed table."""
    if 'case' not in row:
        return '| ' + ' | '.join(f'{key} {_number(value)}' for key, value in row.items()) + ' |'
    size = ', '.join(f'{key} {value}' for key, value in row['size'].items())
    cells = [row['case'], size, row['path']]
    for unit in ('ms', 'mib'):
        published, ours = row.get(f'published_{unit}'), row.get(f'ours_{unit}')
        ratio = _number(published / ours) + ' x' if published and ours else '-'
        cells += [_number(published), _number(ours), ratio]
    return f'| {" | ".join(cells)} |'


def main() -> None:
    """Entry point."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    machine = describe_machine(device, args.threads)
    results = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    print(', '.join(f'{key} {value}' for key, value in machine.items()))
    for group in args.groups or GROUPS:
        print(
            f'\n## {group}\n',
            '| case | size | path | published ms | ours ms | ratio | published MiB | ours MiB | ratio |',
        )
        rows = []
        for row in GROUPS[group](args, device):
            rows.append(row)
            print(line(row), flush=True)
        measured = {row.get('case') for row in rows}
        kept = [row for row in results.get(group, {}).get('rows', []) if row.get('case') not in measured]
        results[group] = {'machine': machine, 'rows': kept + rows}
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1) + '\n')
    if args.plot and 'losses' in results:
        losses = results['losses']
        plot_losses(losses['rows'], args.plot, f'{losses["machine"]["processor"]}, GPU: {losses["machine"]["gpu"]}')


def _number(value: float | str | None) -> str:
    if not isinstance(value, (int, float)):
        return value or '-'
    return f'{value:.3g}' if value < 1000 else f'{value:.0f}'


if __name__ == '__main__':
    main()
