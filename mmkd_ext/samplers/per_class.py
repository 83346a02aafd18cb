"""Batches with so many samples of a class, or of the labelled and the unlabelled ones."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.planned import PlannedBatchSampler, draw_distinct, group_members, labels_of

__all__ = ['EpisodeBatchSampler', 'MPerClassBatchSampler', 'QuotaBatchSampler']


@DATA_SAMPLERS.register_module()
class MPerClassBatchSampler(PlannedBatchSampler):
    """For each step, shuffle all classes and take up to m different samples of each until the step is full.

    The last class is cut to what is missing: 128 samples are 25 classes with 5 and one with 3. A class with fewer than
    m samples gives all that it has, so no sample is in a step twice. Steps know nothing of each other. Unlike
    :class:`~mmkd_ext.samplers.ClassUniformBatchSampler` this promises no equal number of samples per class and no
    coverage in an epoch, and the length of an epoch is free; it is the sampler of the published numbers.

    The step is that of all processes together, and each gets a slice: the steps do not depend on their number, their
    samples are disjoint, and a class may be cut between two. Which samples depends on seed and epoch alone.

    Source: ``NPairs`` in the official code of Park et al., Relational Knowledge Distillation, CVPR 2019
    (arXiv 1904.05068), which has one process and no seed per epoch.

    Args:
        sampler: ``DefaultSampler`` or ``InfiniteSampler`` of mmengine over a data set with ``get_gt_labels()`` or
            ``get_cat_ids(index)``; samples without label (-1) are left out. Its seed, epoch, rank and world size are
            used, its order is not.
        batch_size: Samples per process and step; 128 in the recipe.
        num_batches: Batches per process and epoch; 100 in the recipe, for Stanford Online Products 1000 (teacher) and
            500 (student).
        samples_per_class: m.

    Raises:
        TypeError: If the sampler is another one, or the data set tells no labels.
        ValueError: If the classes cannot fill a step, or a number makes no sense.
    """

    def __init__(self, sampler: Sampler, batch_size: int, num_batches: int, samples_per_class: int = 5) -> None:
        super().__init__(sampler, batch_size)
        if num_batches < 1 or samples_per_class < 1:
            raise ValueError(
                'MPerClassBatchSampler: expected num_batches and samples_per_class >= 1 but got '
                f'{num_batches}, {samples_per_class}; the recipe has 100 and 5'
            )
        self.samples_per_class = samples_per_class
        self._num_batches = num_batches
        self._members, self._size_G = group_members(labels_of(self.sampler.dataset, type(self).__name__))
        available = int(np.minimum(self._size_G, samples_per_class).sum())
        world_size = self.sampler.world_size
        if available < batch_size * world_size:
            raise ValueError(
                f'MPerClassBatchSampler: expected at least {batch_size * world_size} samples for a step of '
                f'{world_size} processes but {len(self._size_G)} classes with up to {samples_per_class} each '
                f'give {available}; raise samples_per_class, or lower the batch size'
            )

    def __len__(self) -> int:
        """Number of batches per process and epoch."""
        return self._num_batches

    def plan(self, epoch: int) -> np.ndarray:
        """Return all batches of this process in one epoch, (len(self), batch_size) indices into the data set."""
        first_G = np.cumsum(self._size_G) - self._size_G
        generator = np.random.default_rng((self.sampler.seed, epoch))
        mine = slice(self.sampler.rank * self.batch_size, (self.sampler.rank + 1) * self.batch_size)
        batches = []
        for _ in range(self._num_batches):
            classes = self._classes_of_step(generator)
            position = draw_distinct(self._size_G[classes], self.samples_per_class, generator)
            step = (position + first_G[classes, None])[position >= 0]
            batches.append(self._members[step[mine]])
        return np.stack(batches)

    def _classes_of_step(self, generator: np.random.Generator) -> np.ndarray:
        """Return the first classes of a shuffled list that fill a step."""
        classes = generator.permutation(len(self._size_G))
        filled = np.cumsum(np.minimum(self._size_G[classes], self.samples_per_class))
        return classes[: 1 + np.searchsorted(filled, self.batch_size * self.sampler.world_size)]


# --------------------------------------------------------------------------------------------------
# Episodes of few-shot learning: N ways, K shots, Q queries.


@DATA_SAMPLERS.register_module()
class EpisodeBatchSampler(PlannedBatchSampler):
    """Each batch is one episode: N classes, and K + Q different samples of each.

    A batch is class-major: the K shots and then the Q queries of the first class, then those of the next, so that
    ``batch.view(N, K + Q, ...)`` is an episode.

    Each episode is on one process only, episode ``i`` on process ``i % W``: together they have the episodes that one
    process would have. (Two episodes may well share images; they are independent draws.) Episode i depends on seed,
    epoch and i alone.

    Source: episodes as in Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016 (arXiv 1606.04080).

    Args:
        sampler: ``DefaultSampler`` or ``InfiniteSampler`` of mmengine over a data set with ``get_gt_labels()`` or
            ``get_cat_ids(index)``; samples without label (-1) are left out. Its seed, epoch, rank and world size are
            used, its order is not.
        batch_size: ``num_ways * (num_shots + num_queries)``; mmengine wants it in the config.
        num_ways: N.
        num_shots: K.
        num_queries: Q.
        num_episodes: Episodes of all processes together in an epoch, a multiple of their number.
        seed: None for new episodes in every epoch, from the seed of the run. With a number the episodes are the same
            in every epoch, run and number of processes, for evaluation.

    Raises:
        TypeError: If the sampler is another one, or the data set tells no labels.
        ValueError: If the numbers do not fit each other, the data set has too few classes, or a class too few samples.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        num_ways: int,
        num_shots: int,
        num_queries: int,
        num_episodes: int,
        seed: int | None = None,
    ) -> None:
        super().__init__(sampler, batch_size)
        self.num_ways, self.num_shots, self.num_queries = num_ways, num_shots, num_queries
        self.num_episodes = num_episodes
        self.seed = seed
        self._members, self._size_G = group_members(labels_of(self.sampler.dataset, type(self).__name__))
        self._check()

    def __len__(self) -> int:
        """Number of episodes per process and epoch."""
        return self.num_episodes // self.sampler.world_size

    def plan(self, epoch: int) -> np.ndarray:
        """Return the episodes of this process in one epoch, (len(self), batch_size) indices into the data set."""
        source = (self.sampler.seed, epoch) if self.seed is None else (self.seed,)
        mine = range(self.sampler.rank, self.num_episodes, self.sampler.world_size)
        return np.stack([self._episode(np.random.default_rng((*source, number))) for number in mine])

    def _episode(self, generator: np.random.Generator) -> np.ndarray:
        first_G = np.cumsum(self._size_G) - self._size_G
        classes = generator.choice(len(self._size_G), self.num_ways, replace=False)
        position = draw_distinct(self._size_G[classes], self.num_shots + self.num_queries, generator)
        return self._members[(position + first_G[classes, None]).ravel()]

    def _check(self) -> None:
        caller, size = 'EpisodeBatchSampler', self.num_shots + self.num_queries
        for name in ('num_ways', 'num_shots', 'num_queries', 'num_episodes'):
            if getattr(self, name) < 1:
                raise ValueError(
                    f'{caller}: expected {name} >= 1 but got {getattr(self, name)}; give a positive number'
                )
        if self.batch_size != self.num_ways * size:
            raise ValueError(
                f'{caller}: expected batch_size to be that of an episode, {self.num_ways} x {size} = '
                f'{self.num_ways * size}, but got {self.batch_size}; set it in the dataloader'
            )
        if self.num_episodes % self.sampler.world_size:
            raise ValueError(
                f'{caller}: expected num_episodes to be a multiple of the {self.sampler.world_size} processes but got '
                f'{self.num_episodes}; change one of the two'
            )
        num_small = np.count_nonzero(self._size_G < size)
        if len(self._size_G) < self.num_ways or num_small:
            raise ValueError(
                f'{caller}: expected at least {self.num_ways} classes, each with at least {size} samples, but got '
                f'{len(self._size_G)}, of which {num_small} are smaller; ask for fewer ways or queries, or leave the '
                'small classes out of the data set'
            )


# --------------------------------------------------------------------------------------------------
# Batches with a fixed number of labelled and of unlabelled samples.


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
        labelled = _labelled_mask(self.sampler.dataset)
        self._pools = (np.flatnonzero(labelled), np.flatnonzero(~labelled))
        for kind, pool, quota in zip(('labelled', 'unlabelled'), self._pools, self.quotas, strict=True):
            world_size = self.sampler.world_size
            if len(pool) < quota * world_size:
                raise ValueError(
                    f'QuotaBatchSampler: expected at least {quota} x {world_size} processes {kind} images but got '
                    f'{len(pool)}; lower the quota, the batch size or the number of processes'
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


def _labelled_mask(dataset: Any) -> np.ndarray:
    mask = getattr(dataset, 'labelled', None)
    if mask is None:
        raise TypeError(
            f'QuotaBatchSampler: expected a data set with a mask `labelled` but got {type(dataset).__name__}; '
            'wrap it in mmkd_ext.NovelClassSplit'
        )
    return np.asarray(mask[: len(dataset)])  # shorter under the Runner's num_batch_per_epoch
