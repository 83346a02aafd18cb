"""Runs of ``reproduce.py`` in processes of their own: several at a time, in pieces, each going on where it stopped."""

import json
import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from mmengine.config import Config

from mmkd_ext.cli import train
from reproduce_log import PIECES, is_finished
from reproduce_recipe import Run

_POLL_SECONDS = 0.2


class Deadline:
    """When a piece of work has to be over.

    Of the last tenth, a minute at most, half is for the iteration or validation at hand and a checkpoint, half for the
    report.

    Args:
        minutes: From now; None for never.
    """

    def __init__(self, minutes: float | None) -> None:
        seconds = float('inf') if minutes is None else 60 * minutes
        reserve = min(60.0, seconds / 10)
        self.grace = reserve / 2
        self._stop = time.monotonic() + seconds - reserve

    @property
    def is_near(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() >= self._stop


def work(runs: list[Run], jobs: int, deadline: Deadline) -> bool:
    """Train what is not finished, stages first, until all is done or time is over.

    Args:
        runs: All runs, stages before what builds on them.
        jobs: How many are trained at a time.
        deadline: When to stop.

    Returns:
        bool: Whether all are finished.

    Raises:
        RuntimeError: A training failed; the others were stopped as at the deadline.
    """
    waiting = [run for run in runs if not is_finished(run)]
    running: dict[Run, BaseProcess] = {}
    try:
        while (waiting or running) and not deadline.is_near:
            for run in [run for run, process in running.items() if process.exitcode is not None]:
                if not _has_ended_well(run, running.pop(run)):
                    return False
            for run in [run for run in waiting if not set(run.stages) & {*waiting, *running}][: jobs - len(running)]:
                waiting.remove(run)
                running[run] = _start(run, jobs)
            time.sleep(_POLL_SECONDS)
        return not waiting and not running
    finally:
        _stop(list(running.values()), deadline.grace)


def _has_ended_well(run: Run, process: BaseProcess) -> bool:
    """Tell a run that is finished from one that was asked to stop from outside, and both from one that failed."""
    if process.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return False
    if process.exitcode or not is_finished(run):
        raise RuntimeError(
            f'{run.name}: expected the training to end well but got code {process.exitcode}; '
            f'see the end of {run.work_dir / "output.txt"}'
        )
    print(f'{run.name}: done', flush=True)
    return True


def _start(run: Run, jobs: int) -> BaseProcess:
    # A forked process finds libraries loaded, but cannot use a GPU if its parent has looked for one.
    context = get_context('spawn' if torch.cuda.is_available() else 'fork')
    process = context.Process(target=train_piece, args=(run.config, run.work_dir, jobs))
    process.start()
    return process


def _stop(processes: list[BaseProcess], grace: float) -> None:
    """Ask for checkpoints; end what does not answer in time, which goes on from its last one."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + grace
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        process.kill()


def train_piece(config: Path, work_dir: Path, jobs: int) -> None:
    """Train one config, on from its newest checkpoint, in a process of its own.

    Args:
        config: The config.
        work_dir: Its work folder; messages go to ``output.txt`` in it.
        jobs: How many share the machine, for the record.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    start = time.monotonic()
    work_dir.mkdir(parents=True, exist_ok=True)
    output = os.open(work_dir / 'output.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    cfg = Config.fromfile(config)
    cfg.launcher = 'none'
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        # The folder may have been moved since.
        cfg.resume, cfg.load_from = True, str(work_dir / Path(pointer.read_text().strip()).name)
    try:
        train.run(cfg)
    finally:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
        seconds = time.monotonic() - start
        piece = {'seconds': seconds, 'device': device, 'torch': torch.__version__, 'jobs': jobs}
        with (work_dir / PIECES).open('a') as file:
            file.write(json.dumps(piece) + '\n')
