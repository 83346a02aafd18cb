"""What our batch samplers share: batches that follow from seed, epoch and rank alone."""

import itertools
from collections.abc import Iterator

import numpy as np
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import Sampler

__all__ = ['PlannedBatchSampler']


class PlannedBatchSampler(Sampler):
    """Base of the batch samplers that make all batches of an epoch at once, as one array.

    The inner sampler is never iterated. It stands for what mmengine gives to samplers: data set, seed, rank, world size
    and the epoch, which mmengine's ``DistSamplerSeedHook`` sets on it. Over an ``InfiniteSampler``, one epoch follows
    the other without end.

    Nothing is kept from batch to batch: ``plan(epoch)[j]`` is batch j without those before it, and an iterator passes
    over a batch that nobody wants (``islice(batch_sampler, j, None)``, to go on with an interrupted epoch) in about two
    microseconds.

    Args:
        sampler: ``DefaultSampler`` or ``InfiniteSampler`` of mmengine.
        batch_size: Samples per process and step.

    Raises:
        TypeError: If the sampler is another one.
    """

    def __init__(self, sampler: Sampler, batch_size: int) -> None:
        if not isinstance(sampler, DefaultSampler | InfiniteSampler):
            raise TypeError(
                f'{type(self).__name__}: expected a DefaultSampler or an InfiniteSampler of mmengine but got '
                f"{type(sampler).__name__}; set sampler=dict(type='DefaultSampler', shuffle=True)"
            )
        self.sampler = sampler
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches per process and epoch."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own __len__(); define it')

    def plan(self, epoch: int) -> np.ndarray:
        """Return all batches of this process in one epoch, (len(self), batch_size) indices into the data set."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own plan(); define it')

    def __iter__(self) -> Iterator[list[int]]:
        epochs = [self.sampler.epoch] if hasattr(self.sampler, 'epoch') else itertools.count()
        for epoch in epochs:
            for batch in self.plan(epoch):
                yield batch.tolist()
