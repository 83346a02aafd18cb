"""Batches of the metric-learning recipe of RKD: up to m samples of each class."""

import numpy as np
from torch.utils.data import Sampler

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.planned import PlannedBatchSampler, draw_distinct, group_members, labels_of

__all__ = ['MPerClassBatchSampler']


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
        self._members, self._size_G = group_members(labels_of(sampler.dataset, type(self).__name__))
        available = int(np.minimum(self._size_G, samples_per_class).sum())
        if available < batch_size * sampler.world_size:
            raise ValueError(
                f'MPerClassBatchSampler: expected at least {batch_size * sampler.world_size} samples for a step of '
                f'{sampler.world_size} processes but {len(self._size_G)} classes with up to {samples_per_class} each '
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
