"""CUR: batches of m classes with k samples each."""

from torch.utils.data import Sampler

from mmkd_ext.registry import DATA_SAMPLERS
from mmkd_ext.samplers.group_uniform import GroupUniformBatchSampler
from mmkd_ext.samplers.labels import labels_of

__all__ = ['ClassUniformBatchSampler']


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
        self._set_groups(labels_of(sampler.dataset, type(self).__name__))
