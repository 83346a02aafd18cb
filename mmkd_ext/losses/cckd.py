"""Correlation congruence (CCKD) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.cckd import check_correlation_settings, correlation_congruence
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class CCKDLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.correlation_congruence` times a weight.

    The paper's objective, ``alpha`` CE + (1 - ``alpha``) KD + ``beta`` CC, is a matter of weights: ``alpha`` is the
    ``loss_weight`` of the student's own loss, 1 - ``alpha`` that of a :class:`KDLoss`, ``beta`` the one here.

    Args:
        loss_weight: ``beta``; 100 is the value published with a faithful form of the loss (KD-Zoo).
        kernel: ``'gaussian'``, ``'bilinear'`` or ``'mmd'``.
        gamma: Inverse width of the Gaussian, or ``'median'`` to take it from the teacher's distances in each batch.
        order: Order of the Gaussian's Taylor polynomial, 2 in the paper; None for the exact kernel.
        normalize: Whether features are first scaled to length 1.
        gather: Whether the samples of all processes are related (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``gamma`` or ``loss_weight`` is not a number.
        ValueError: If a setting is unknown or out of range.
    """

    row_sharded = True

    def __init__(
        self,
        loss_weight: float = 100.0,
        *,
        kernel: str = 'gaussian',
        gamma: float | str = 0.4,
        order: int | None = None,
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        check_correlation_settings('CCKDLoss', kernel, gamma, order)
        super().__init__(loss_weight, gather=gather, kernel=kernel, gamma=gamma, order=order, normalize=normalize)

    def relation(self, student: Tensor, teacher: Tensor, *, rows: slice | None = None) -> Tensor:
        """Compare as the function does."""
        return correlation_congruence(student, teacher, rows=rows, **self.settings)
