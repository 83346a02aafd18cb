"""How many files of the package a reader has to open to follow a training step, or a whole discovery.

    python benchmarks/count_files.py                        # all three paths of this checkout
    PYTHONPATH=<checkout> python benchmarks/count_files.py  # those of another one

Counted are the files below ``mmkd_ext/`` of which a function body ran (``sys.setprofile``; what runs when a module is
imported does not count), with all their lines, in each of these:

- ``rkd_step``: one iteration of ``configs/rkd/rkd_convnet-small_100e_digits-200.py``: mmpretrain's classifier with
  DistillHook and the terms RKDDistanceLoss and RKDAngleLoss.
- ``crkd_step``: one iteration of ``configs/crkd/crkd_convnet_80e_digits.py``: UNO's classifier with the term of Cr-KD.
- ``discover``: a whole run of tools/discover.py on 40 images in a new folder, one epoch a stage, two novel classes.

An iteration is ``runner.train_loop.run_iter`` in mid-training, number 21, neither first nor last of its epoch: every
hook's ``before_train_iter``, ``model.train_step(data, optim_wrapper)`` and every hook's ``after_train_iter``. The batch
is loaded before it. No line is logged in this iteration, no checkpoint is written, and what the teacher costs was told
before. Teachers have random weights. What runs in processes that load data is not seen; these runs have none.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop, Runner
from PIL import Image

import mmkd_ext

PACKAGE = Path(mmkd_ext.__file__).parent
CONFIGS = {
    'rkd_step': 'rkd/rkd_convnet-small_100e_digits-200.py',
    'crkd_step': 'crkd/crkd_convnet_80e_digits.py',
}

ITERATION = 21
_IS_FUNCTION = 0x2
"""``inspect.CO_NEWLOCALS``: bodies of modules lack it. Bodies of classes run at import, when nothing is recorded."""


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module's body is what calls: decorators, registries, names that moved."""
    while frame is not None and not (frame.f_code.co_name == '<module>' and frame.f_globals['__name__'] != '__main__'):
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def recorded_files(files: set[str]) -> Iterator[None]:
    """Collect the package's files of all functions that are called inside, in any thread of this process."""

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        file = code.co_filename
        is_new = file not in files and file.startswith(str(PACKAGE))
        if event == 'call' and code.co_flags & _IS_FUNCTION and is_new and not _is_importing(frame):
            files.add(file)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # None is what takes it off


def step(config: str) -> set[str]:
    """Train a config for some epochs and return the files of one iteration."""
    files: set[str] = set()
    cfg = Config.fromfile(PACKAGE.parent / 'configs' / config)
    cfg.work_dir = '.'
    cfg.train_cfg.max_epochs = 6
    for hook in cfg.custom_hooks:
        if hook['type'] == 'mmkd_ext.DistillHook':
            hook['teacher']['checkpoint'] = None
    cfg.load_from = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.interval = 1000
    init_default_scope(cfg.default_scope)
    runner = Runner.from_cfg(cfg)
    loop = type(runner.train_loop)
    run_iter = loop.run_iter

    def run_one(self: EpochBasedTrainLoop, idx: int, data_batch: Any) -> None:
        with recorded_files(files) if runner.iter == ITERATION else contextlib.nullcontext():
            run_iter(self, idx, data_batch)

    loop.run_iter = run_one  # of the class: ExactResumeHook wraps that of the object
    try:
        runner.train()
    finally:
        loop.run_iter = run_iter
    return files


def discovery() -> set[str]:
    """Return the files of a run of the tool."""
    files: set[str] = set()
    generator = np.random.default_rng(0)
    for index in range(40):
        kind = index % 4
        place = Path('known', 'ab'[kind]) if kind < 2 else Path('all')
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (8, 8), dtype=np.uint8) + 40 * kind
        Image.fromarray(pixels.astype(np.uint8)).save(place / f'{index}.png')
    run = _discover_command()
    with recorded_files(files):
        run(['known', 'all', '--epochs', '1', '--num-novel', '2'])
    return files


def _discover_command() -> Callable[[list[str]], Any]:
    try:
        from mmkd_ext.cli.discover import discover
    except ImportError:  # until 0.7 the tool was a script
        sys.path.insert(0, str(PACKAGE.parent / 'tools'))
        from discover import main as discover
    return discover


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', nargs='*', help='rkd_step, crkd_step, discover; default: all')
    parser.add_argument('--loud', action='store_true', help='show the logs of the runs')
    args = parser.parse_args()
    for name in args.paths or [*CONFIGS, 'discover']:
        here, quiet = Path.cwd(), contextlib.redirect_stdout(None if args.loud else io.StringIO())
        with tempfile.TemporaryDirectory() as folder, contextlib.nullcontext() if args.loud else quiet:
            os.chdir(folder)
            files = step(CONFIGS[name]) if name in CONFIGS else discovery()
            os.chdir(here)
        own = sorted(Path(file).relative_to(PACKAGE) for file in files if Path(file).is_relative_to(PACKAGE))
        lines = {file: len((PACKAGE / file).read_text().splitlines()) for file in own}
        print(f'{name}: {len(own)} files, {sum(lines.values())} lines')
        for file, number in lines.items():
            print(f'  {number:5} {file}')


if __name__ == '__main__':
    main()
