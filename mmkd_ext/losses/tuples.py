"""A relation of n samples, on tuples drawn at random in every step, as a term of a training."""

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_choice, check_positive
from mmkd_ext.functional.potentials import (
    analogy_potential,
    angle_potential,
    distance_potential,
    simplex_potential,
)
from mmkd_ext.functional.tuples import sample_tuples, tuple_relation
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.registry import MODELS

__all__ = ['TupleRelationLoss']

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

    Draws come from a generator of its own, seeded alike on all processes: gathered batches meet the same tuples
    everywhere. A resumed training starts the sequence anew.

    Args:
        loss_weight: Factor of the term.
        potential: ``'distance'``, ``'angle'``, ``'analogy'`` or ``'simplex'``.
        order: Samples of a tuple: 2, 3, 4, and 3 to 6, in this order.
        num_tuples: Tuples of a step.
        delta: Where Huber's loss turns from square to linear.
        seed: Seed of the draws.
        gather: Relate the samples of all processes (:class:`RelationLoss`).

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
        delta: float = 1.0,
        seed: int = 0,
        gather: bool = False,
    ) -> None:
        who = 'TupleRelationLoss'
        settings = dict(potential=potential, order=order, num_tuples=num_tuples, delta=delta, seed=seed)
        super().__init__(loss_weight, gather=gather, **settings)
        check_choice(who, tuple(_POTENTIALS), potential=potential)
        check_positive(who, delta=delta, num_tuples=num_tuples)
        self.potential, orders = _POTENTIALS[potential]
        if order not in orders:
            raise ValueError(
                f'{who}: expected order in {orders} for {potential!r} but got {order!r}; a tuple has so many samples'
            )
        self.generator = torch.Generator().manual_seed(seed)

    def relation(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Draw tuples and compare on them; a differentiable 0 for fewer samples than a tuple has."""
        order, num_samples = self.settings['order'], len(student)
        num_tuples = self.settings['num_tuples'] if num_samples >= order else 0
        tuples = sample_tuples(max(num_samples, order), order, num_tuples, generator=self.generator)
        return tuple_relation(student, teacher, tuples, potential=self.potential, delta=self.settings['delta'])
