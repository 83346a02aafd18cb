"""Batches of one pass over the data after the other, for a loop that counts iterations."""

from typing import Any

from torch.utils.data import DataLoader

from mmkd_ext.samplers.resumable import ResumableBatchSampler

__all__ = ['EndlessBatches']


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
        self._iterator = None

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: the iterator begins where it should."""

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self._num_skipped:
            self._num_skipped -= 1
            return None
        if self._iterator is None:
            self._begin()
        try:
            batch = next(self._iterator)
        except StopIteration:
            self.epoch, self.position = self.epoch + 1, 0
            self._begin()
            batch = next(self._iterator)
        self.position += 1
        return batch

    def _begin(self) -> None:
        sampler = self._loader.sampler if hasattr(self._loader.sampler, 'set_epoch') else self._batches.sampler
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.epoch)
        self._batches.epoch, self._batches.start = self.epoch, self.position
        self._iterator = iter(self._loader)
