"""Batches that can be taken up in the middle of an epoch, with the same augmentations whoever loads them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from mmkd_ext.samplers.random_state import get_random_state, seed_cpu, set_random_state

__all__ = ['ResumableBatchSampler', 'SeededBatch']


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

    def __init__(self, batch_sampler: Iterable[Sequence[Any]], seed: int, rank: int = 0) -> None:
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
