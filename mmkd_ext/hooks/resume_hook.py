"""A run may end at any moment and goes on bit for bit: whole checkpoints, one more on a signal, exact resuming."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, IterableDataset

from mmkd_ext.checkpoint import ATOMIC, save_checkpoint
from mmkd_ext.engine.runner import (
    EndlessBatches,
    ResumableBatchSampler,
    gather_local_states,
    get_random_state,
    restore_local_state,
    set_random_state,
    student_of,
)
from mmkd_ext.io import PARTIAL
from mmkd_ext.registry import HOOKS

__all__ = ['AtomicCheckpointHook', 'ExactResumeHook', 'PreemptionHook', 'resumed_batches']

_KEY = 'exact_resume'
"""Entry of the checkpoint."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Lets a resumed run go on with the very next batch, in the random state that it would have found.

    mmengine repeats an epoch from its first batch when the checkpoint is of the middle of one, and keeps no random
    state. This hook writes both into every checkpoint. On resuming, batches already trained on are passed over by
    their indices, without loading them; ``batch_idx`` goes on counting; and a validation that was due when the
    checkpoint was written, but is not known to be complete, is done first.

    So that augmentations do not depend on which worker loads a sample, each sample is loaded in a random state of its
    own (:class:`mmkd_ext.samplers.ResumableBatchSampler`), and the random states of the main process, which dropout
    draws from, are left alone by data loading and validation.

    Exact for map-style data sets whose transforms draw from the global generators of Python, NumPy and torch; for
    ``EpochBasedTrainLoop`` and ``IterBasedTrainLoop``; with the number of processes and the batch size as they were.
    In several processes, :class:`mmkd_ext.AtomicCheckpointHook` has to write the checkpoints.

    Attributes:
        first_batch: Batches of the present epoch (of the run, in a loop that counts iterations) that an earlier
            process was trained on.
    """

    # Last: what other hooks draw at the start of an epoch must not come after the random state is restored.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.first_batch = 0
        self._loaded: dict[str, Any] | None = None
        self._local_states: list[dict[str, Any]] | None = None
        self._position = 0
        self._validated = -1
        self._outside_validation: dict[str, Any] = {}

    def before_save_in_all_processes(self, runner: Runner) -> None:
        """Collect the states of all processes in the main one.

        Args:
            runner: The runner.
        """
        self._local_states = self._gather(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the position in the data and the states of the processes.

        Args:
            runner: The runner.
            checkpoint: Its entry ``exact_resume`` is written.
        """
        if not isinstance(runner._train_loop, BaseLoop):
            return
        local_states, self._local_states = self._local_states, None
        if local_states is None and get_world_size() == 1:
            local_states = self._gather(runner)
        iterator = _endless(runner)
        checkpoint[_KEY] = {
            'epoch': iterator.epoch if iterator else runner.epoch,
            'position': iterator.position if iterator else self._position,
            'num_batches': len(runner.train_dataloader),
            'sampler_seed': getattr(_sampler(runner.train_dataloader), 'seed', None),
            'validated': self._validated,
            'local_states': local_states,
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what a resumed run needs.

        Args:
            runner: The runner.
            checkpoint: What the file held.
        """
        if runner._resume:
            self._loaded = checkpoint.get(_KEY, {})
            warning = _ended_schedules(runner, checkpoint)
            if warning:
                runner.logger.warning(warning)

    def before_train(self, runner: Runner) -> None:
        """Take over the order of batches; where a run is resumed, go to where it was.

        Args:
            runner: The runner.

        Raises:
            TypeError: The data are a stream.
        """
        loader = runner.train_dataloader
        if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
            raise TypeError(
                'ExactResumeHook: expected a data set with __getitem__ that is read in batches but got '
                f'{type(loader.dataset).__name__}; leave the hook out, by default_hooks=dict(_delete_=True, ...)'
            )
        loaded = self._usable(runner)
        if loaded and loaded['sampler_seed'] is not None:
            _sampler(loader).seed = loaded['sampler_seed']
        self._batches = ResumableBatchSampler(loader.batch_sampler, runner.seed, get_rank())
        # torch forbids this assignment because a running iterator would not heed it; the epoch has not begun.
        vars(loader)['batch_sampler'] = self._batches
        if loader.generator is None:
            loader.generator = torch.Generator()  # else each epoch's iterator draws from torch's own
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self._take_over_iterator(runner, loaded)
        elif loaded and loaded['epoch'] == runner.epoch:
            self.first_batch = loaded['position']
        if loaded:
            self._validated = loaded['validated']
            restore_local_state(loaded['local_states'][get_rank()], student_of(runner))
            if loaded['validated'] != runner.iter and self._validation_was_due(runner):
                runner.logger.info('ExactResumeHook: the validation that was due when the run ended comes first')
                runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the state of an epoch that is resumed in the middle.

        Args:
            runner: The runner.
        """
        loop = runner.train_loop
        self._batches.epoch, self._position = runner.epoch, self.first_batch
        if self.first_batch == 0 or self._loaded is None:
            return
        restore_local_state(self._loaded['local_states'][get_rank()], student_of(runner))
        if not isinstance(loop, IterBasedTrainLoop):
            self._batches.start = self.first_batch
            loop.run_iter = partial(_run_iter, loop.run_iter, self.first_batch)
        runner.logger.info(f'ExactResumeHook: going on after batch {self.first_batch} of the epoch')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the position: the checkpoint of this iteration is written after it.

        Args:
            runner: The runner.
            batch_idx: Place of the batch in the epoch.
            data_batch: Not used.
        """
        self._position = batch_idx + 1

    def after_train_epoch(self, runner: Runner) -> None:
        """Let the next epoch begin at its first batch.

        Args:
            runner: The runner.
        """
        self.first_batch = self._position = 0
        vars(runner.train_loop).pop('run_iter', None)

    def before_val(self, runner: Runner) -> None:
        """Remember the random states.

        Args:
            runner: The runner.
        """
        self._outside_validation = get_random_state(cuda=True)

    def after_val(self, runner: Runner) -> None:
        """Restore them, so that training does not depend on whether and when there is a validation.

        Args:
            runner: The runner.
        """
        set_random_state(self._outside_validation)
        self._outside_validation = {}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note that the validation of this iteration is done.

        Args:
            runner: The runner.
            metrics: Not used.
        """
        if isinstance(runner._train_loop, BaseLoop):
            self._validated = runner.iter

    def _gather(self, runner: Runner) -> list[dict[str, Any]] | None:
        random_state = self._outside_validation or get_random_state(cuda=True)  # a new best is saved in a validation
        return gather_local_states(student_of(runner), random_state)

    def _usable(self, runner: Runner) -> dict[str, Any] | None:
        """Return what the checkpoint holds, if it belongs to this run."""
        if self._loaded is None:
            return None
        loaded, size = self._loaded, (get_world_size(), len(runner.train_dataloader))
        states = loaded.get('local_states')
        if states is None:
            problem = f'a checkpoint with {_KEY!r} of all processes but this one has none'
        elif (len(states), loaded['num_batches']) != size:
            problem = (
                f'{size[0]} processes with {size[1]} batches each but the checkpoint is of {len(states)} with '
                f'{loaded["num_batches"]}'
            )
        else:
            return loaded
        runner.logger.warning(
            f'ExactResumeHook: expected {problem}; the run goes on from the first batch of its epoch and with new '
            'random states, as mmengine does'
        )
        return None

    def _take_over_iterator(self, runner: Runner, loaded: dict[str, Any] | None) -> None:
        loop = runner.train_loop
        epoch, position = (loaded['epoch'], loaded['position']) if loaded else (0, 0)
        self.first_batch = runner.iter if loaded else 0
        has_skip = hasattr(loop.dataloader_iterator, 'skip_iter')
        loop.dataloader_iterator._iterator = loop.dataloader._iterator = None  # ends workers that mmengine starts early
        sampler = _sampler(loop.dataloader)
        if isinstance(sampler, InfiniteSampler):
            sampler.indices = sampler._indices_of_rank()  # those workers drew from it
        num_skipped = 0 if has_skip else runner.iter
        loop.dataloader_iterator = EndlessBatches(loop.dataloader, self._batches, epoch, position, num_skipped)

    def _validation_was_due(self, runner: Runner) -> bool:
        loop = runner.train_loop
        counts_iterations = isinstance(loop, IterBasedTrainLoop)
        done, end = (runner.iter, runner.max_iters) if counts_iterations else (runner.epoch, runner.max_epochs)
        if runner.val_loop is None or done == 0 or (self.first_batch and not counts_iterations):
            return False
        loop._decide_current_val_interval()
        return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


def resumed_batches(runner: Runner) -> int:
    """Return how many batches of the epoch that begins now an earlier process was trained on; mostly 0.

    For hooks that start something new with each epoch, which an epoch that is resumed in the middle must not lose.

    Args:
        runner: The runner.
    """
    return next((hook.first_batch for hook in runner.hooks if isinstance(hook, ExactResumeHook)), 0)


def _ended_schedules(runner: Runner, checkpoint: dict[str, Any]) -> str | None:
    """Say so if a run was made longer than its schedules, which mmengine takes from the checkpoint."""
    before = checkpoint.get('message_hub', {}).get('runtime_info', {})
    lengths = {True: (before.get('max_epochs'), runner.max_epochs), False: (before.get('max_iters'), runner.max_iters)}
    ended = []
    for state in _in_order(checkpoint.get('param_schedulers')):
        old, new = lengths[bool(state.get('by_epoch', True))]
        # Only what lasted until the end of the run: a warm-up ends early in every run.
        end = min((state[name] for name in ('end', 'T_max') if name in state), default=0)
        if old and new and old <= end < new:
            ended.append((end, old, new))
    if not ended:
        return None
    end, old, new = max(ended)
    return (
        f'ExactResumeHook: expected a run of the length of its schedules but it was made longer, {new} in the place of '
        f'{old}, and mmengine goes on with the schedules of the checkpoint, which end at {end}: the last rate (or '
        'momentum) stays from there on, whatever the config says now. Train from load_from= with resume=False to have '
        'schedules of the new length'
    )


def _in_order(schedulers: Any) -> list[Any]:
    """Return schedulers, or their states, of one optimizer or of several."""
    if isinstance(schedulers, dict):
        return [scheduler for group in schedulers.values() for scheduler in group]
    return list(schedulers or ())


def _run_iter(run_iter: Any, first_batch: int, idx: int, data_batch: Any) -> None:
    run_iter(first_batch + idx, data_batch)


def _endless(runner: Runner) -> EndlessBatches | None:
    iterator = getattr(runner.train_loop, 'dataloader_iterator', None)
    return iterator if isinstance(iterator, EndlessBatches) else None


def _sampler(loader: DataLoader) -> Any:
    """Return the sampler that has the seed: that of the loader, or that under its batch sampler."""
    return loader.sampler if hasattr(loader.sampler, 'seed') else getattr(loader.batch_sampler, 'sampler', None)


# --------------------------------------------------------------------------------------------------
# Checkpoints that a kill at any moment leaves usable.


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` with the same arguments, names and files, safe against being killed.

    A checkpoint appears under its name when it is complete, then ``last_checkpoint`` is replaced by one that names it,
    and only then what exceeds ``max_keep_ckpts`` is removed (mmengine removes first, so that a run that keeps one
    checkpoint has none while it writes). Remains of a killed run are removed when it is resumed.

    This holds for local files. Where ``out_dir`` is remote, or a backend is named, that backend writes.

    Args:
        *args: Those of ``CheckpointHook``.
        **kwargs: Those of ``CheckpointHook``.
    """

    backend_args: dict[str, Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_local = (
            self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir or '')
        )
        if self._is_local:
            self.backend_args = {'backend': ATOMIC}

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and clear it of files that were never completed.

        Args:
            runner: The runner.
        """
        super().before_train(runner)
        # Else a new best in the first validation after resuming would be noted in no checkpoint.
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
        if self._is_local and is_main_process():
            for path in Path(self.out_dir).glob(f'*{PARTIAL}'):
                path.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = self._count_in(runner, step) if self.max_keep_ckpts > 0 else []
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        save_checkpoint(
            runner,
            self.out_dir,
            name,
            meta,
            file_client_args=self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            for old in outdated:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    def _count_in(self, runner: Runner, step: int) -> list[int]:
        """Add a checkpoint to those that are kept, and return those that are too many."""
        kept = [*self.keep_ckpt_ids, *([] if step in self.keep_ckpt_ids else [step])]
        # With those to be removed: a run that is killed before it removes them does so when it is resumed.
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        self.keep_ckpt_ids.extend(kept[len(self.keep_ckpt_ids) :])
        return kept[: -self.max_keep_ckpts]

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)


# --------------------------------------------------------------------------------------------------
# Saves a checkpoint when the process is asked to end.


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
