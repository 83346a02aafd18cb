"""Episodes of few-shot learning: N ways, K shots, Q queries."""

import numpy as np
from torch.utils.data import Sampler

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.planned import PlannedBatchSampler, draw_distinct, group_members, labels_of

__all__ = ['EpisodeBatchSampler']


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
        self._members, self._size_G = group_members(labels_of(sampler.dataset, type(self).__name__))
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
