"""What hooks ask mmengine's Runner for, and what makes a resumed run, to the bit, the one that was not interrupted.

In this order: the model and its settings; facts that a report states; the state in which training began; the random
states of Python, NumPy and torch, in containers that a weights-only checkpoint can hold; batches that can be taken up
in the middle of an epoch; passes over the data for a loop that counts iterations; and the state of each process.
:class:`mmkd_ext.ExactResumeHook` puts the last four together.

These are written by hand because torchdata's ``StatefulDataLoader`` keeps the order of samples but not what
augmentations draw, and mmengine neither in the middle of an epoch (``docs/libraries.md``).
"""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, gather_object, get_world_size
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel, BaseModel, is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmkd_ext.io import sha256
from mmkd_ext.registry import MODELS


def student_of(runner: Runner) -> BaseModel:
    """Return the model without a wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def averages_of(runner: Runner) -> list[BaseAveragedModel]:
    """Return the averages of the model that EMA hooks keep."""
    return [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]


def model_config(runner: Runner) -> dict[str, Any]:
    """Return what builds another model like the runner's.

    Raises:
        RuntimeError: The runner does not know.
    """
    if 'model' not in runner.cfg:
        raise RuntimeError(
            'model_config: expected a runner that knows the config of its model but got one built without; '
            'use Runner.from_cfg(cfg)'
        )
    model = copy.deepcopy(runner.cfg.model)
    if 'data_preprocessor' in runner.cfg:
        model.setdefault('data_preprocessor', copy.deepcopy(runner.cfg.data_preprocessor))
    return model


def new_weights(runner: Runner, seed: int) -> dict[str, torch.Tensor]:
    """Return the state dict of a model as the runner's config makes it, on the CPU.

    Args:
        runner: Its config has the model.
        seed: Decides on the weights; the run's own random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: BaseModel = MODELS.build(model_config(runner))
        model.init_weights()
    return model.state_dict()


# --------------------------------------------------------------------------------------------------
# Facts about a run that a report states.


def progress(runner: Runner) -> tuple[float, str]:
    """Return how far training is, and in which unit: epochs, or iterations in a loop without epochs.

    Args:
        runner: A runner that trains.

    Returns:
        tuple: Epochs done, possibly a fraction, and 'epoch'; or iterations done and 'iteration'.
    """
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        return runner.iter / len(loop.dataloader), 'epoch'
    return float(runner.iter), 'iteration'


def run_settings(runner: Runner, *, is_training: bool) -> dict[str, Any]:
    """Return what the numbers of a run belong to.

    Args:
        runner: The runner.
        is_training: Whether it trains; otherwise it tests a checkpoint.

    Returns:
        dict: Name -> string, int or ``None``.
    """
    filename = runner.cfg.filename
    return {
        'config': Path(filename).stem if filename else runner.experiment_name,
        'config file': filename and str(filename),
        'checkpoint': runner.message_hub.get_info('last_ckpt') if is_training else runner._load_from,
        'seed': runner.seed,
        'iteration': runner.iter if is_training else 0,
        'work folder': runner.work_dir,
    }


# --------------------------------------------------------------------------------------------------
# The state in which training began.


class InitialState:
    """The states in which optimizers and schedulers of a runner were built.

    Args:
        runner: Everything is built, nothing trained, loaded or resumed yet, as in ``Hook.before_run``.
    """

    def __init__(self, runner: Runner) -> None:
        self._states = copy.deepcopy([part.state_dict() for part in _schedule(runner)])

    def restore(self, runner: Runner) -> None:
        """Give optimizers and schedulers these states, drop gradients, and let averages of weights start again."""
        for part, state in zip(_schedule(runner), self._states, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        runner.optim_wrapper.zero_grad()
        for average in averages_of(runner):
            average.steps.zero_()  # its next update copies the weights


def _schedule(runner: Runner) -> list[Any]:
    """Return the optimizer wrapper and all schedulers."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):  # of several optimizers
        schedulers = [scheduler for group in schedulers.values() for scheduler in group]
    return [runner.optim_wrapper, *schedulers]


# --------------------------------------------------------------------------------------------------
# Random states of Python, NumPy and torch, in containers that a weights-only checkpoint can hold.


def get_random_state(*, cuda: bool = False) -> dict[str, Any]:
    """Return the states of the process.

    Args:
        cuda: Whether that of the current CUDA device, if there is one, is included; reading it waits for the device.

    Returns:
        Tuples, numbers and tensors (uint8 or int64, on the CPU).
    """
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    _, keys, *rest = numpy_state
    state = {
        'python': random.getstate(),
        'numpy': (torch.from_numpy(keys.astype(np.int64)), *rest),
        'torch': torch.get_rng_state(),
    }
    if cuda and torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set what :func:`get_random_state` returned, be it moved to another device since.

    Args:
        state: A state of CUDA is left out on a machine without a GPU.
    """
    random.setstate(state['python'])
    keys, *rest = state['numpy']
    np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def seed_cpu(seed: int) -> None:
    """Seed Python, NumPy and torch's CPU generator; ``torch.manual_seed`` would seed every GPU too.

    Args:
        seed: 0..2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


# --------------------------------------------------------------------------------------------------
# Batches that can be taken up in the middle of an epoch, with the same augmentations whoever loads them.


class SeededBatch:
    """The indices of one batch; going through them seeds the process for each sample in turn.

    torch's loader reads a batch as ``[dataset[index] for index in batch]``, in a worker or in the main process. So each
    sample finds the random state that its seed stands for, and the states of before are back when the batch is read.

    Args:
        indices: What the data set is asked for.
        entropy: Non-negative numbers that, with the place in the batch, decide on the seeds.
    """

    def __init__(self, indices: Sequence[Any], entropy: Sequence[int]) -> None:
        self.indices = indices
        self.entropy = tuple(entropy)

    def __len__(self) -> int:
        return len(self.indices)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the indices alone, without seeding, for a data set that reads whole batches and draws nothing."""
        return np.array(self.indices, dtype=dtype)

    def __iter__(self) -> Iterator[Any]:
        seeds = np.random.SeedSequence(self.entropy).generate_state(len(self.indices))
        before = get_random_state()
        try:
            for index, seed in zip(self.indices, seeds.tolist(), strict=True):
                seed_cpu(seed)
                yield index
        finally:
            set_random_state(before)


class ResumableBatchSampler:
    """Another batch sampler's batches, from any of them on, each sample with a random state of its own.

    The seeds follow from the run's seed, the process, the epoch, the number of the batch and the place in it. Hence a
    batch is the same after resuming, and for any number of workers. Attributes that are not found here are those of
    the wrapped batch sampler.

    Args:
        batch_sampler: Anything that yields sequences of indices.
        seed: Of the run.
        rank: Of the process.

    Attributes:
        epoch: Enters the seeds; to be set before an epoch begins. The order of samples is the wrapped sampler's.
        start: Batches that the next iteration leaves out, without loading them; later iterations are whole.
    """

    def __init__(self, batch_sampler: Any, seed: int, rank: int = 0) -> None:
        self.batch_sampler = batch_sampler
        self.epoch = 0
        self.start = 0
        self._entropy = (seed, rank)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[SeededBatch]:
        start, self.start = self.start, 0
        for number, batch in enumerate(islice(self.batch_sampler, start, None), start):
            yield SeededBatch(batch, (*self._entropy, self.epoch, number))

    def __getattr__(self, name: str) -> Any:
        if name == 'batch_sampler':  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)


# --------------------------------------------------------------------------------------------------
# Batches of one pass over the data after the other, for a loop that counts iterations.


class EndlessBatches:
    """Takes the place of the iterator in mmengine's ``IterBasedTrainLoop`` and knows where in the data it is.

    A resumed loop first asks for the batches that were trained on: ``skip_iter(n)`` in onedl-mmengine, n calls of
    ``next`` in mmengine. Neither loads anything here, since the position is known.

    Args:
        loader: Its batch sampler is ``batches``.
        batches: The batch sampler.
        epoch: Passes over the data that are complete.
        position: Batches of the present pass that were trained on.
        num_skipped: Calls of ``next`` that have no batch to give.

    Attributes:
        epoch, position: The same, kept up to date.
    """

    def __init__(
        self, loader: DataLoader, batches: ResumableBatchSampler, epoch: int, position: int, num_skipped: int
    ) -> None:
        self.epoch = epoch
        self.position = position
        self._loader = loader
        self._batches = batches
        self._num_skipped = num_skipped
        self._iterator: Iterator[Any] | None = None

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: the iterator begins where it should."""

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self._num_skipped:
            self._num_skipped -= 1
            return None
        iterator = self._iterator or self._begin()
        try:
            batch = next(iterator)
        except StopIteration:
            self.epoch, self.position = self.epoch + 1, 0
            batch = next(self._begin())
        self.position += 1
        return batch

    def _begin(self) -> Iterator[Any]:
        sampler = self._loader.sampler if hasattr(self._loader.sampler, 'set_epoch') else self._batches.sampler
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.epoch)
        self._batches.epoch, self._batches.start = self.epoch, self.position
        self._iterator = iter(self._loader)
        return self._iterator


# --------------------------------------------------------------------------------------------------
# What a checkpoint, written by the main process, would otherwise lack of each process.


def gather_local_states(model: nn.Module, random_state: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Collect the states of all processes, all of which call this.

    Args:
        model: Without a wrapper.
        random_state: Of this process, from :func:`mmkd_ext.engine.runner.get_random_state`.

    Returns:
        In the main process, by rank: ``random``, the random states; ``gradients`` by parameter, which exist between
        updates only while gradients are accumulated; ``buffers`` by name, those in which processes differ, such as the
        batch statistics without SyncBN. None in other processes.
    """
    return gather_object(
        {
            'random': random_state,
            'gradients': {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None},
            'buffers': _differing_buffers(model) if get_world_size() > 1 else {},
        }
    )


def restore_local_state(state: Mapping[str, Any], model: nn.Module) -> None:
    """Bring the process to the state that :func:`gather_local_states` found it in.

    Args:
        state: The entry of this rank.
        model: Without a wrapper.
    """
    set_random_state(state['random'])
    for name, gradient in state['gradients'].items():
        parameter = model.get_parameter(name)
        parameter.grad = gradient.to(parameter.device)
    for name, value in state['buffers'].items():
        model.get_buffer(name).copy_(value)


def _differing_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    buffers = {name: buffer.cpu() for name, buffer in model.named_buffers()}
    # Digests first: a queue of features, alike everywhere, need not travel.
    digests = all_gather_object({name: _digest(buffer) for name, buffer in buffers.items()})
    return {name: buffer for name, buffer in buffers.items() if len({digest[name] for digest in digests}) > 1}


def _digest(tensor: torch.Tensor) -> str:
    return sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
