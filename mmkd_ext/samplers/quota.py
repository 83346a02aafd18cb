"""Batches with a fixed number of labelled and of unlabelled samples."""

import numpy as np
import torch
from torch.utils.data import Sampler

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.planned import PlannedBatchSampler


@DATA_SAMPLERS.register_module()
class QuotaBatchSampler(PlannedBatchSampler):
    """Each batch holds ``batch_size - num_unlabelled`` labelled samples, then ``num_unlabelled`` unlabelled ones.

    The batches of a step are disjoint between processes and all processes have the same number of them, in an order
    that depends on ``sampler.seed + sampler.epoch`` alone. The pool that lasts longer makes an epoch; the other one
    starts again in a new order as often as needed. UNO's ImageNet experiments draw half and half in this way, its
    CIFAR experiments do not: a shuffling ``DefaultSampler`` over the whole split with ``drop_last=True`` is theirs.

    In a config, beside ``batch_size`` and ``sampler=dict(type='DefaultSampler', shuffle=True)``::

        batch_sampler=dict(type='mmkd_ext.QuotaBatchSampler', num_unlabelled=256), drop_last=False

    where ``drop_last=False`` is the loader's: torch refuses it beside a batch sampler, which drops by itself.

    Source: Fini et al., A Unified Objective for Novel Class Discovery, ICCV 2021, https://arxiv.org/abs/2108.08536.

    Args:
        sampler: mmengine sampler over a :class:`~mmkd_ext.datasets.NovelClassSplit` (anything with a bool mask
            ``labelled``). Its dataset, seed, epoch, rank, world size and ``shuffle`` are used, its order is not. Over
            an ``InfiniteSampler`` the batches never end.
        batch_size: Samples per process and step.
        num_unlabelled: Unlabelled ones among them, 1..batch_size - 1.
        drop_last: Whether samples that do not fill a step are left out in this pass; otherwise the step is filled up
            with samples of the start of the pass.

    Raises:
        TypeError: If the sampler or its data set lacks what is needed.
        ValueError: If the quota leaves no room for one of the two kinds, or a pool cannot fill one step.
    """

    def __init__(self, sampler: Sampler, batch_size: int, num_unlabelled: int, drop_last: bool = True) -> None:
        super().__init__(sampler, batch_size)
        if not 0 < num_unlabelled < batch_size:
            raise ValueError(
                f'QuotaBatchSampler: expected num_unlabelled in 1..{batch_size - 1} for batch_size {batch_size} but '
                f'got {num_unlabelled}; choose a number between'
            )
        self.drop_last = drop_last
        self.quotas = (batch_size - num_unlabelled, num_unlabelled)
        labelled = _labelled_mask(sampler.dataset)
        self._pools = (np.flatnonzero(labelled), np.flatnonzero(~labelled))
        for kind, pool, quota in zip(('labelled', 'unlabelled'), self._pools, self.quotas, strict=True):
            if len(pool) < quota * sampler.world_size:
                raise ValueError(
                    f'QuotaBatchSampler: expected at least {quota} x {sampler.world_size} processes {kind} images but '
                    f'got {len(pool)}; lower the quota, the batch size or the number of processes'
                )

    def __len__(self) -> int:
        """Number of batches per process and epoch."""
        return max(map(self._steps_per_pass, self._pools, self.quotas))

    def plan(self, epoch: int) -> np.ndarray:
        """Return all batches of this process in one epoch, (len(self), batch_size) indices into the data set."""
        generator = torch.Generator().manual_seed(self.sampler.seed + epoch)
        pools = [self._steps(pool, quota, generator) for pool, quota in zip(self._pools, self.quotas, strict=True)]
        return np.concatenate(pools, axis=1)

    def _steps_per_pass(self, pool: np.ndarray, quota: int) -> int:
        step = quota * self.sampler.world_size
        return len(pool) // step if self.drop_last else -(-len(pool) // step)

    def _steps(self, pool: np.ndarray, quota: int, generator: torch.Generator) -> np.ndarray:
        """Return the samples of this process from one pool, (number of batches, quota)."""
        rank, world_size = self.sampler.rank, self.sampler.world_size
        steps = self._steps_per_pass(pool, quota)
        passes = []
        for _ in range(-(-len(self) // steps)):
            order = pool[torch.randperm(len(pool), generator=generator).numpy()] if self.sampler.shuffle else pool
            passes.append(np.resize(order, (steps, world_size, quota))[:, rank])
        return np.concatenate(passes)[: len(self)]


def _labelled_mask(dataset: object) -> np.ndarray:
    mask = getattr(dataset, 'labelled', None)
    if mask is None:
        raise TypeError(
            f'QuotaBatchSampler: expected a data set with a mask `labelled` but got {type(dataset).__name__}; '
            'wrap it in mmkd_ext.NovelClassSplit'
        )
    return np.asarray(mask[: len(dataset)])  # shorter under the Runner's num_batch_per_epoch
