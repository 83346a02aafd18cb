"""``mmkd discover`` and ``mmkd infer``: from folders of images to classes, and to the classes of new images."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmkd_ext.cli import command, prepare
from mmkd_ext.datasets.folder_images import look_through
from mmkd_ext.discover import DiscoveryInferencer, Options, Steps
from mmkd_ext.visualization import DiscoveryResult, write_assignments_csv

_DISCOVER = """Discover what classes there are in a folder of images, given labelled images of some.

    mmkd discover photos/known photos/all --out what_is_in_photos

Writes assignments.csv, report.html, the configs and the checkpoint of each stage.
"""


def parse_discover(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = command('discover', _DISCOVER)
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
    parser.add_argument('--epochs', type=_at_least(1), help='of each stage; default: by the number of images')
    parser.add_argument(
        '--batch-size', type=_at_least(2), metavar='N', help='images in a batch, at most; fewer take less memory'
    )
    parser.add_argument('--config', help='config in place of the generated <out>/configs/discovery.py')
    parser.add_argument('--seed', type=_at_least(0), default=0)
    parser.add_argument('--resume', action='store_true', help='go on with what is in the folder of the results')
    return parser.parse_args(arguments)


def _number(text: str) -> int | None:
    if text == 'auto':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a number of at least 1, or auto, but got {text!r}')
    return int(text)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'expected a number of at least {least} but got {text!r}')
        return int(text)

    return number


@contextmanager
def _without_traceback(name: str) -> Iterator[None]:
    """End with the message of an error that a user can mend."""
    try:
        yield
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.exit(f'mmkd {name}: error: {message}'.encode('utf-8', 'backslashreplace').decode())


def discover(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd discover``."""
    args = parse_discover(arguments)
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
        batch_size=args.batch_size,
    )
    prepare(Config(), 'none')
    with _without_traceback('discover'):
        steps = Steps(
            options,
            args.out,
            say=lambda line: print(f'\n=== {line} ===\n', flush=True),
            prepare=lambda cfg: prepare(cfg, 'none'),
            resume=args.resume,
        )
        steps.start()
    steps.run()
    print(f'\nOpen {steps.folder.root / "report.html"}', flush=True)


# --------------------------------------------------------------------------------------------------
# mmkd infer

_INFER = """Tell the classes of new images with the model of a discovery.

    mmkd infer what_is_in_photos photos/new --csv new.csv

Images are files, folders or CSV files with a column path. Broken files are listed and left out.
"""


def parse_infer(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = command('infer', _INFER)
    parser.add_argument('model', help='folder that mmkd discover filled, or config of its last stage')
    parser.add_argument('images', nargs='+', help='files, folders, CSV files')
    parser.add_argument('--weights', help='checkpoint; default: that of the folder')
    parser.add_argument('--csv', default='predictions.csv', help='file of the results; default: predictions.csv')
    parser.add_argument('--device', help='cpu, cuda, ...; default: the accelerator, if there is one')
    return parser.parse_args(arguments)


def infer(arguments: Sequence[str] | None = None) -> None:
    """Run ``mmkd infer``."""
    args = parse_infer(arguments)
    with _without_traceback('infer'):
        inferencer = DiscoveryInferencer(args.model, args.weights, args.device)
        paths, broken, ignored, notes = look_through(args.images)
    results = inferencer(paths)
    result = DiscoveryResult(
        title='',
        paths=paths,
        pictures=paths,
        known_names=inferencer.classes[: inferencer.num_known],
        novel_names=inferencer.classes[inferencer.num_known :],
        labels=np.array([entry['pred_label'] for entry in results], dtype=np.int64),
        confidence=np.array([entry['pred_score'] for entry in results]).clip(0, 1),
        distance=np.array([entry['distance'] for entry in results]),
        is_labelled=np.zeros(len(paths), dtype=bool),
    )
    write_assignments_csv(result, Path(args.csv))
    for kind, entries in (('broken', broken), ('ignored', ignored)):
        for path, reason in entries:
            print(f'{kind}: {path!r}: {reason}')
    for note in notes:
        print(f'note: {note}'.encode('utf-8', 'backslashreplace').decode())
    print(f'{len(paths)} images in {args.csv}, {len(broken)} broken files, {len(ignored)} ignored')
