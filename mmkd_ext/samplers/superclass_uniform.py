"""SUR: batches of m superclasses with k samples each."""

import numpy as np

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.group_uniform import GroupUniformBatchSampler

__all__ = ['SuperclassUniformBatchSampler']


@DATA_SAMPLERS.register_module()
class SuperclassUniformBatchSampler(GroupUniformBatchSampler):
    """Superclass-uniform random sampling: as CUR, but the groups are clusters of the teacher's features.

    It needs no labels, and a superclass holds what the teacher finds alike, across the borders of classes. All that
    :class:`~mmkd_ext.samplers.ClassUniformBatchSampler` says of classes, samples, processes and resuming holds for
    superclasses. :class:`~mmkd_ext.hooks.SuperclassHook` computes them and hands them over before the first batch.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019 (arXiv 1904.01802), Sec. 3.4.

    Args:
        sampler: ``DefaultSampler`` or ``InfiniteSampler`` of mmengine. Its data set, seed, epoch, rank and world size
            are used, its order is not.
        batch_size: Samples per process and step, b.
        samples_per_group: Samples of each superclass, k.
        semantics: ``'global'`` (default) or ``'local'``.
        num_batches: Batches per process and epoch; None: as many as one pass over the data has, without the rest.

    Raises:
        TypeError: If the sampler is another one.
        ValueError: If a batch is no multiple of k, or an argument makes no sense.
    """

    def set_superclasses(self, ids_N: np.ndarray) -> None:
        """Take the superclass of each sample.

        Args:
            ids_N: (N,) integers >= 0, one per sample of the data set.

        Raises:
            ValueError: If there is not one per sample, or they cannot fill a step with different samples.
        """
        if ids_N.shape != (self._num_samples(),) or ids_N.min(initial=0) < 0:
            raise ValueError(
                f'SuperclassUniformBatchSampler: expected one superclass >= 0 for each of {self._num_samples()} '
                f'samples but got shape {ids_N.shape}, smallest {ids_N.min(initial=0)}; compute them for this data set'
            )
        self._set_groups(ids_N)

    def plan_of_all(self, epoch: int) -> np.ndarray:
        """Return all batches of all W processes in one epoch, (len(self), W, batch_size); the same in each of them.

        Raises:
            RuntimeError: If there are no superclasses yet.
        """
        if not len(self._size_G):
            raise RuntimeError(
                'SuperclassUniformBatchSampler: expected superclasses before the first batch but got none; add '
                "dict(type='mmkd_ext.SuperclassHook', ...) to custom_hooks. With an IterBasedTrainLoop, whose workers "
                'start before any hook, also set num_workers=0'
            )
        return super().plan_of_all(epoch)

    def _num_samples(self) -> int:
        return len(self.sampler.dataset)  # every sample is in a superclass, which the Runner need not wait for
