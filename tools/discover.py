"""Discover what classes there are in a folder of images, given labelled images of some.

    python tools/discover.py photos/known photos/all --out what_is_in_photos

Writes assignments.csv, report.html, the configs and the checkpoint of each stage. docs/discover.md explains them.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from mmkd_ext.discover import Options, Steps
from startup import prepare


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('labelled', help='folder with one folder per known class, or CSV with columns path and label')
    parser.add_argument('unlabelled', help='folder of other images, with all folders in it, or CSV with a column path')
    parser.add_argument('--out', default='discovered', help='folder of the results; default: discovered')
    parser.add_argument(
        '--num-novel', type=_number, default=None, metavar='N|auto', help='number of novel classes; default: auto'
    )
    parser.add_argument(
        '--unlabelled-are',
        choices=['auto', 'any', 'novel'],
        default='auto',
        help='whether unlabelled images may also be of known classes; default: look whether a fifth seem to be',
    )
    parser.add_argument('--backbone', help='model of mmpretrain by name, or config file; default: by image size')
    parser.add_argument('--checkpoint', help='weights of the backbone, file or address; default: random')
    parser.add_argument('--epochs', type=int, help='of each stage; default: by the number of images')
    parser.add_argument('--config', help='config in place of the generated <out>/configs/discovery.py')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--resume', action='store_true', help='go on with what is in the folder of the results')
    return parser.parse_args(arguments)


def _number(text: str) -> int | None:
    if text == 'auto':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number of at least 1, or auto, but got {text!r}')
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    options = Options(
        labelled=args.labelled,
        unlabelled=args.unlabelled,
        num_novel=args.num_novel,
        assign_to={'auto': 'auto', 'any': 'all', 'novel': 'novel'}[args.unlabelled_are],
        backbone=args.backbone,
        checkpoint=args.checkpoint,
        epochs=args.epochs,
        config=args.config,
        seed=args.seed,
    )
    prepare(Config(), 'none')
    steps = Steps(
        options,
        args.out,
        say=lambda line: print(f'\n=== {line} ===\n', flush=True),
        prepare=lambda cfg: prepare(cfg, 'none'),
        resume=args.resume,
    )
    steps.run()
    print(f'\nOpen {steps.folder.root / "report.html"}', flush=True)


if __name__ == '__main__':
    main()
