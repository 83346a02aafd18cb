"""Saves a checkpoint when the process is asked to end."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmkd_ext.engine.checkpoint_files import ATOMIC, save_checkpoint
from mmkd_ext.registry import HOOKS

__all__ = ['PreemptionHook']


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Ends training on SIGTERM or SIGUSR1 with a checkpoint from which ``--resume`` goes on.

    Clusters send such a signal some time before they take the machine away. The iteration is completed (during a
    validation: the validation and, if training goes on, no further iteration), ``<work_dir>/interrupted.pth`` is
    written and named in ``last_checkpoint``, and the process exits with 128 + the signal's number, as if the signal
    had ended it. A second signal ends the process at once.

    A signal may reach some processes only, so all have to agree, which costs a reduction of one number and waiting
    for it. It is done every ``interval`` iterations; one process alone looks after each.

    Args:
        interval: Iterations between agreements of several processes.

    Raises:
        ValueError: ``interval`` is not positive.
    """

    # After CheckpointHook (VERY_LOW): two checkpoints of one iteration must not be written at a time.
    priority = 'LOWEST'

    SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name))
    FILENAME = 'interrupted.pth'

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise ValueError(f'PreemptionHook: expected interval >= 1 but got {interval}; give a positive number')
        self.interval = interval
        self._received = 0
        self._previous: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Begin to listen.

        Args:
            runner: The runner.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other thread listen
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                _spare_workers(loop.dataloader)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Save and exit, if any process was asked to.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: Not used.
            outputs: Not used.
        """
        if get_world_size() == 1 or self.every_n_train_iters(runner, self.interval):
            self._end_if_asked(runner, runner.iter + 1)

    def after_val(self, runner: Runner) -> None:
        """Save and exit, if any process was asked to.

        Args:
            runner: The runner.
        """
        if self._previous:
            self._end_if_asked(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Stop listening.

        Args:
            runner: The runner.
        """
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, self._previous[number])

    def _end_if_asked(self, runner: Runner, iteration: int) -> None:
        number = self._received
        if get_world_size() > 1:
            received = torch.tensor(number, device=get_device())
            all_reduce(received, 'max')
            number = int(received)
        if number == 0:
            return
        meta = {'epoch': runner.epoch, 'iter': iteration}
        path = save_checkpoint(
            runner, runner.work_dir, self.FILENAME, meta, by_epoch=False, backend_args={'backend': ATOMIC}
        )
        runner.logger.warning(
            f'PreemptionHook: {signal.Signals(number).name} after iteration {iteration}; saved {path}. Go on with the '
            'same command and --resume'
        )
        self.after_train(runner)
        barrier()  # launchers kill the others when the first process exits
        raise SystemExit(128 + number)


def _spare_workers(loader: DataLoader) -> None:
    """Let the workers of a loader outlive one signal: a cluster signals them too, and the iteration needs them."""
    if hasattr(signal, 'sigwaitinfo'):  # macOS has none
        loader.worker_init_fn = partial(_outlive_one_signal, loader.worker_init_fn)


def _outlive_one_signal(worker_init_fn: Callable[[int], None] | None, worker: int) -> None:
    # A thread and no handler, as only it learns who sent a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, PreemptionHook.SIGNALS)
    threading.Thread(target=_take_signals, daemon=True).start()
    if worker_init_fn is not None:
        worker_init_fn(worker)


def _take_signals() -> None:
    has_outlived = False
    while True:
        received = signal.sigwaitinfo(PreemptionHook.SIGNALS)
        if received.si_pid == os.getppid():
            os._exit(0)  # when the main process exits, it ends its workers by one SIGTERM and waits for them
        if has_outlived:
            os._exit(128 + received.si_signo)
        has_outlived = True
