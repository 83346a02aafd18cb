"""Batches of m groups with k samples each, whatever the groups are.

Suffixes: N samples, G groups, S steps of an epoch, M groups in a step over all processes, k samples of each.
"""

import numpy as np
from torch.utils.data import Sampler

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.planned import PlannedBatchSampler, draw_in_cycles, group_members, labels_of

__all__ = ['ClassUniformBatchSampler', 'GroupUniformBatchSampler', 'SuperclassUniformBatchSampler']


class GroupUniformBatchSampler(PlannedBatchSampler):
    """Base of CUR and SUR; a subclass decides on the groups and hands them to ``_set_groups``.

    Args:
        sampler: see :class:`~mmkd_ext.samplers.planned.PlannedBatchSampler`.
        batch_size: Samples per process and step.
        samples_per_group: k.
        semantics: ``'global'`` or ``'local'``.
        num_batches: Batches per process and epoch; None: as many as one pass over the data has.

    Raises:
        TypeError: see :class:`~mmkd_ext.samplers.planned.PlannedBatchSampler`.
        ValueError: If a batch is no multiple of k, or an argument makes no sense.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        samples_per_group: int,
        semantics: str = 'global',
        num_batches: int | None = None,
    ) -> None:
        super().__init__(sampler, batch_size)
        caller = type(self).__name__
        if semantics not in ('global', 'local'):
            raise ValueError(f"{caller}: expected semantics 'global' or 'local' but got {semantics!r}; choose one")
        unit, size = ('step', batch_size * self.sampler.world_size) if semantics == 'global' else ('batch', batch_size)
        if samples_per_group < 1 or size % samples_per_group:
            raise ValueError(
                f'{caller}: expected the {size} samples of a {unit} to be a multiple of samples_per_group but got '
                f'{samples_per_group}; choose a divisor of {size}'
            )
        if num_batches is not None and num_batches < 1:
            raise ValueError(
                f'{caller}: expected num_batches >= 1 but got {num_batches}; None makes one pass of the data'
            )
        self.samples_per_group = samples_per_group
        self.semantics = semantics
        self._num_batches = num_batches
        self._members = self._size_G = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Number of batches per process and epoch."""
        step = self.batch_size * self.sampler.world_size
        return self._num_batches or max(1, self._num_samples() // step)

    def plan(self, epoch: int) -> np.ndarray:
        """Return all batches of this process in one epoch, (len(self), batch_size) indices into the data set."""
        return self.plan_of_all(epoch)[:, self.sampler.rank].copy()

    def plan_of_all(self, epoch: int) -> np.ndarray:
        """Return all batches of all W processes in one epoch, (len(self), W, batch_size); the same in each of them."""
        generator = np.random.default_rng((self.sampler.seed, epoch))
        num_steps, world_size = len(self), self.sampler.world_size
        group_SM = _choose_groups(self._capacity_G(), num_steps, self._groups_per_step(), generator)
        sample_SMk = self._draw_samples(group_SM, generator)
        if self.semantics == 'global':
            order_SM = np.argsort(generator.random(group_SM.shape), axis=1)
            sample_SMk = np.take_along_axis(sample_SMk, order_SM[:, :, None], axis=1)
        else:
            # Dealt out in turn, equal groups, which are neighbours, come to different processes.
            sample_SMk = sample_SMk.reshape(num_steps, -1, world_size, self.samples_per_group).swapaxes(1, 2)
            turn = (np.arange(world_size) + generator.integers(world_size, size=(num_steps, 1))) % world_size
            sample_SMk = np.take_along_axis(sample_SMk, turn[:, :, None, None], axis=1)
        return sample_SMk.reshape(num_steps, world_size, self.batch_size)

    def _num_samples(self) -> int:
        return len(self._members)

    def _set_groups(self, ids_N: np.ndarray) -> None:
        """Take the group of each sample of the data set, negative for none.

        Raises:
            ValueError: If they do not suffice for one step.
        """
        self._members, self._size_G = group_members(ids_N)
        caller, k = type(self).__name__, self.samples_per_group
        wanted, found = self._groups_per_step(), int(self._capacity_G().sum())
        if found < wanted:
            raise ValueError(
                f'{caller}: expected {wanted} groups of {k} different samples for a step of {self.sampler.world_size} '
                f'processes but the {len(self._size_G)} groups of the data set make {found} '
                f'({self.semantics} semantics); raise samples_per_group, or lower the batch size'
            )
        num_small = np.count_nonzero(self._size_G < k)
        if self.batch_size % k and num_small:
            raise ValueError(
                f'{caller}: expected a batch size that is a multiple of samples_per_group, {k}, as {num_small} '
                'groups are '
                f'smaller and would repeat a sample on two processes, but got {self.batch_size}; change one of the two'
            )

    def _groups_per_step(self) -> int:
        return self.batch_size * self.sampler.world_size // self.samples_per_group

    def _capacity_G(self) -> np.ndarray:
        """Return how often a group can be in one step without showing a sample on two processes."""
        capacity_G = np.maximum(self._size_G // self.samples_per_group, 1)
        return capacity_G if self.semantics == 'global' else np.minimum(capacity_G, self.sampler.world_size)

    def _draw_samples(self, group_SM: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Fill the groups of each step, which are sorted, with samples; (S, M, k)."""
        num_groups, k = len(self._size_G), self.samples_per_group
        key = (np.arange(len(group_SM))[:, None] * num_groups + group_SM).ravel()
        first = np.flatnonzero(np.diff(key, prepend=-1))  # all that a group gives to one step is one request
        count = np.diff(first, append=len(key)) * k
        position = draw_in_cycles(self._size_G, key[first] % num_groups, count, generator)
        first_G = np.cumsum(self._size_G) - self._size_G
        return self._members[position.reshape(*group_SM.shape, k) + first_G[group_SM][:, :, None]]


def _choose_groups(
    capacity_G: np.ndarray, num_steps: int, groups_per_step: int, generator: np.random.Generator
) -> np.ndarray:
    """Return the groups of each step, (S, M), sorted within a step.

    Where there are at least M groups, they are drawn without replacement from a list that is shuffled anew when it is
    used up, and differ within a step. Otherwise all are in every step, as equally often as their capacity permits, and
    only the rest is drawn in this way.
    """
    level = 0
    while level < capacity_G.max() and np.minimum(capacity_G, level + 1).sum() <= groups_per_step:
        level += 1
    always = np.repeat(np.arange(len(capacity_G)), np.minimum(capacity_G, level))
    others = np.flatnonzero(capacity_G > level)
    group_SM = np.tile(always, (num_steps, 1))
    num_drawn = groups_per_step - len(always)
    if num_drawn:
        requests = np.zeros(num_steps, dtype=np.int64), np.full(num_steps, num_drawn)
        drawn = others[draw_in_cycles(np.array([len(others)]), *requests, generator)]
        group_SM = np.concatenate([group_SM, drawn.reshape(num_steps, num_drawn)], axis=1)
    return np.sort(group_SM, axis=1)


# --------------------------------------------------------------------------------------------------
# CUR: batches of m classes with k samples each.


@DATA_SAMPLERS.register_module()
class ClassUniformBatchSampler(GroupUniformBatchSampler):
    r"""Class-uniform random sampling: each batch has m classes with k samples of each, :math:`b = m k`.

    A share :math:`(k - 1) / (b - 1)` of the pairs of different samples in a batch is of one class, where uniform
    sampling from C balanced classes has about :math:`1 / C`.

    - **Classes** are drawn without replacement from a shuffled list, which is shuffled anew when it is used up. In an
      epoch all are drawn equally often, up to one: **the class prior becomes uniform**, whatever it is in the data.
    - **Samples** of a class are drawn in the same way; in an epoch they are drawn equally often, up to one. Those of a
      class smaller than the average come several times in an epoch, those of a larger one not all.
    - A class with fewer than k samples repeats its own, also in one batch; one without samples never comes up; samples
      without label (-1) never do.
    - **Processes**: no sample is on two of them in a step, all have equally many batches, and which ones depends on
      seed and epoch alone. With ``semantics='global'`` the batch of all W processes together is ``W * b / k`` classes
      with k samples each, of which each process gets a slice: the same steps result from one process with a batch of
      ``W * b``. With ``'local'`` the batch of each process is b / k different classes with k samples each, for losses
      that see only one process; two processes may have the same class if there are fewer than ``W * b / k``. Where
      there are at least as many and k divides b, ``'global'`` also gives every process its own b / k classes.

    ``plan(epoch)[j]`` is batch j of this process, without those before it. The plan of an epoch is made when its first
    batch is asked for.

    In a config, beside ``batch_size`` and ``sampler=dict(type='DefaultSampler', shuffle=True)``::

        batch_sampler=dict(type='mmkd_ext.ClassUniformBatchSampler', samples_per_group=4), drop_last=False

    where ``drop_last=False`` is the loader's: torch refuses it beside a batch sampler, which drops by itself.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019 (arXiv 1904.01802), Sec. 3.4.

    Args:
        sampler: ``DefaultSampler`` or ``InfiniteSampler`` of mmengine over a data set with ``get_gt_labels()`` or
            ``get_cat_ids(index)``. Its seed, epoch, rank and world size are used, its order is not.
        batch_size: Samples per process and step, b.
        samples_per_group: Samples of each class, k.
        semantics: ``'global'`` (default) or ``'local'``.
        num_batches: Batches per process and epoch; None: as many as one pass over the labelled samples has, without
            the rest.

    Raises:
        TypeError: If the sampler is another one, or the data set tells no labels.
        ValueError: If a batch is no multiple of k, or the classes cannot fill a step with different samples.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        samples_per_group: int,
        semantics: str = 'global',
        num_batches: int | None = None,
    ) -> None:
        super().__init__(sampler, batch_size, samples_per_group, semantics, num_batches)
        self._set_groups(labels_of(self.sampler.dataset, type(self).__name__))


# --------------------------------------------------------------------------------------------------
# SUR: batches of m superclasses with k samples each.


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
