"""Run the configs of a published table, stages first, and put our numbers beside the published ones.

    python reproduce/reproduce.py ncd-cifar100-50 --seeds 0 --bf16 --channels-last --compile
    python reproduce/reproduce.py kd-resnet56-resnet20 --epochs 60 --stage-epochs 60 --seeds 0 --jobs 6 --minutes 10
    python reproduce/reproduce.py kd-resnet56-resnet20 --smoke

The report, ``<table>.json``, ``.md`` and ``.png`` in ``--out``, is written after every call. With ``--minutes`` a call
stops in time, with a checkpoint of every run, and exits with code 75; the same command goes on, also where ``--out``
was moved in the meantime. Finished runs are kept. docs/benchmarks.md says what is compared with what.
"""

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from reproduce_recipe import Settings, make_runs, write_noise
from reproduce_report import markdown, summarise, write
from reproduce_runs import Deadline, work
from tables import TABLES, Table, find_table

NOT_FINISHED = 75
"""Exit code: EX_TEMPFAIL of the BSDs, try again."""


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', help=f'one of {", ".join(TABLES)}')
    parser.add_argument('--seeds', nargs='+', type=int, help='default: 0 1 2, and 0 with --smoke')
    parser.add_argument('--epochs', type=int, help='length of a run, its schedule in proportion; default: the recipe')
    parser.add_argument('--stage-epochs', type=int, help='the same for stage one and teachers; default: the recipe')
    parser.add_argument('--minutes', type=float, help='stop before so many minutes are over')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time; small networks do not fill a large GPU')
    parser.add_argument('--bf16', action='store_true', help='train in bfloat16 (autocast)')
    parser.add_argument('--compile', action='store_true', help='torch.compile, with the settings of mmengine')
    parser.add_argument('--channels-last', action='store_true', help='memory format; tables of discovery only')
    parser.add_argument('--smoke', action='store_true', help='tiny data, networks and length: does everything work?')
    parser.add_argument('--data', default='data/cifar100', help='folder of CIFAR-100')
    parser.add_argument('--out', type=Path, help='default: work_dirs/reproduce/<table>, with --smoke <table>-smoke')
    args = parser.parse_args(arguments)
    for name in ('epochs', 'stage_epochs', 'minutes', 'jobs'):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f'--{name.replace("_", "-")}: expected a positive number but got {value}')
    try:
        table = find_table(args.table)
    except KeyError as error:
        parser.error(error.args[0])
    if args.channels_last and table.metric == 'accuracy/top1':
        parser.error(f'--channels-last: expected a table of discovery but got {args.table}; leave the option out')
    return _with_defaults(args)


def _with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    args.seeds = args.seeds or ([0] if args.smoke else [0, 1, 2])
    args.out = (args.out or Path('work_dirs', 'reproduce', args.table + '-smoke' * args.smoke)).absolute()
    args.epochs = args.epochs or (2 if args.smoke else None)
    args.stage_epochs = args.stage_epochs or (1 if args.smoke else None)
    return args


def check_settings(settings: Settings, out: Path) -> None:
    """Keep runs of different settings out of one folder.

    Raises:
        ValueError: The folder has runs of others.
    """
    path = out / 'settings.json'
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings._asdict()))
    found = json.loads(path.read_text())
    if found != settings._asdict():
        differing = {name: value for name, value in found.items() if value != settings._asdict()[name]}
        raise ValueError(
            f'reproduce.py: expected the settings of the runs in {out}, {differing}, but got others; repeat them, or '
            'choose another --out'
        )


def reproduce(name: str, table: Table, args: argparse.Namespace) -> bool:
    """Train what is missing of a table, until time is over, and write the report; return whether all is there."""
    deadline = Deadline(args.minutes)
    settings = Settings(**{field: getattr(args, field) for field in Settings._fields})
    check_settings(settings, args.out)
    data = Path(args.data).absolute()
    if args.smoke and not data.is_dir():
        data = args.out / 'data'
        if not data.is_dir():
            write_noise(data)
    runs = make_runs(table, args.seeds, settings, args.out, str(data))
    try:
        return work(runs, args.jobs, deadline)
    finally:
        summary = summarise(name, table, runs, settings)
        write(summary, args.out)
        print(f'\n{markdown(summary)}\nReport: {args.out / name}.md', flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    importlib.import_module('mmpretrain.models')  # once, for all processes that are forked
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(NOT_FINISHED))
    if not reproduce(args.table, find_table(args.table), args):
        print('Not finished; the same command goes on.', flush=True)
        sys.exit(NOT_FINISHED)


if __name__ == '__main__':
    main()
