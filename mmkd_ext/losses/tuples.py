"""A relation of n samples, on tuples drawn at random in every step, as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.tuples import (
    analogy_potential,
    angle_potential,
    distance_potential,
    keep_tuples,
    sample_tuples,
    simplex_potential,
    tuple_relation,
)
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.ops.arguments import check_choice, check_not_negative, check_positive
from mmkd_ext.ops.random import seeded_generator
from mmkd_ext.registry import MODELS

# By name: the potential, and the orders it is defined for.
_POTENTIALS = {
    'distance': (distance_potential, (2,)),
    'angle': (angle_potential, (3,)),
    'analogy': (analogy_potential, (4,)),
    'simplex': (simplex_potential, (3, 4, 5, 6)),
}


@MODELS.register_module()
class TupleRelationLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.tuple_relation` on new random tuples in every step, times a weight.

    Tuples follow from seed and iteration: those of a resumed training are those of an undisturbed one, and gathered
    batches meet the same tuples on all processes.

    With ``fraction`` only so many of all tuples take part for a whole epoch, fixed by the ids of their samples
    (:func:`~mmkd_ext.functional.keep_tuples`): the same in every step of the epoch, on all processes. Of the tuples
    drawn, the others are dropped.

    Args:
        loss_weight: Factor of the term.
        potential: ``'distance'``, ``'angle'``, ``'analogy'`` or ``'simplex'``.
        order: Samples of a tuple: 2, 3, 4, and 3 to 6, in this order.
        num_tuples: Tuples that are drawn in a step.
        fraction: Share of all tuples that an epoch keeps, in (0, 1]; None for all.
        delta: Where Huber's loss turns from square to linear.
        seed: Seed of the draws, >= 0.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``loss_weight`` or ``delta`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        potential: str = 'simplex',
        order: int = 4,
        num_tuples: int = 4096,
        fraction: float | None = None,
        delta: float = 1.0,
        seed: int = 0,
        gather: bool = False,
    ) -> None:
        caller = 'TupleRelationLoss'
        settings = dict(
            potential=potential, order=order, num_tuples=num_tuples, fraction=fraction, delta=delta, seed=seed
        )
        super().__init__(loss_weight, gather=gather, **settings)
        check_choice(caller, tuple(_POTENTIALS), potential=potential)
        check_positive(caller, delta=delta, num_tuples=num_tuples)
        check_not_negative(caller, seed=seed)
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f'{caller}: expected fraction in (0, 1] but got {fraction}; it is a share of the tuples')
        self.potential, orders = _POTENTIALS[potential]
        if order not in orders:
            raise ValueError(
                f'{caller}: expected order in {orders} for {potential!r} but got {order!r}; a tuple has so many samples'
            )

    # A term passes what the forward of its loss names.
    def forward(  # type: ignore[override]
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        iteration: int,
        epoch: int = 0,
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """Draw tuples and compare on them; a differentiable 0 for fewer samples than a tuple has.

        Args:
            student: What the student makes of N samples, shape (N, ...).
            teacher: What the teacher makes of them, shape (N, ...).
            iteration: Another one draws other tuples.
            epoch: With ``fraction``, another one keeps other tuples.
            sample_ids: With ``fraction``, the samples' ids in the data set, integers, shape (N,).

        Returns:
            Scalar, float32 or float64.

        Raises:
            RuntimeError: If there are no ``sample_ids`` though there is a ``fraction``.
            ValueError: If shapes do not fit or a value is NaN.
        """
        if self.settings['fraction'] is None:
            student, teacher = self.joined(student, teacher)
            tuples = self._draw(len(student), iteration)
            return self.loss_weight * self.relation(student, teacher, tuples=tuples)
        ids = self._checked_ids(sample_ids, len(student))
        student, teacher, ids = self.joined(student, teacher, ids)
        tuples = self._draw(len(student), iteration).to(student.device, non_blocking=True)
        keep = keep_tuples(ids, tuples, fraction=self.settings['fraction'], epoch=epoch)
        return self.loss_weight * self.relation(student, teacher, tuples=tuples, keep=keep)

    def relation(self, student: Tensor, teacher: Tensor, *, tuples: Tensor, keep: Tensor | None = None) -> Tensor:
        """Compare on the tuples given, indices of shape (M, order), or on those of them that ``keep`` marks."""
        delta = self.settings['delta']
        return tuple_relation(student, teacher, tuples, potential=self.potential, keep=keep, delta=delta)

    def _draw(self, num_samples: int, iteration: int) -> Tensor:
        order, num_tuples = self.settings['order'], self.settings['num_tuples']
        generator = seeded_generator(self.settings['seed'], iteration)
        num_tuples = num_tuples if num_samples >= order else 0
        return sample_tuples(max(num_samples, order), order, num_tuples, generator=generator)

    def _checked_ids(self, sample_ids: Tensor | None, num_samples: int) -> Tensor:
        fraction = self.settings['fraction']
        if sample_ids is None:
            raise RuntimeError(
                f'TupleRelationLoss: expected sample_ids for fraction={fraction} but the data samples have no '
                "sample_idx; add 'sample_idx' to the meta_keys of the last transform, PackInputs(meta_keys=(..., "
                "'sample_idx')), or compare rows that are samples"
            )
        if len(sample_ids) != num_samples:
            raise ValueError(
                f'TupleRelationLoss: expected an id of each of {num_samples} samples for fraction={fraction} but got '
                f'{len(sample_ids)}; tap a tensor with one row per sample'
            )
        return sample_ids
