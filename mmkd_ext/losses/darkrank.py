"""Order of neighbours (DarkRank) as a term of a training."""

from torch import Tensor

from mmkd_ext.functional.darkrank import check_rank_settings, hard_dark_rank
from mmkd_ext.losses.base import RelationLoss
from mmkd_ext.registry import MODELS


@MODELS.register_module()
class HardDarkRankLoss(RelationLoss):
    """:func:`~mmkd_ext.functional.hard_dark_rank` times a weight.

    Args:
        loss_weight: Factor of the term.
        alpha: Factor of the distances that are ranked; the official code's training script passes 2.
        beta: Power of these distances.
        permute_len: Number of nearest neighbours that are ranked.
        normalize: Whether embeddings are first scaled to length 1.
        gather: Whether the samples of all processes are ranked (rule: :class:`.GatheredLoss`).

    Raises:
        TypeError: If ``alpha``, ``beta`` or ``loss_weight`` is not a number.
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        *,
        alpha: float = 3.0,
        beta: float = 3.0,
        permute_len: int = 4,
        normalize: bool = True,
        gather: bool = False,
    ) -> None:
        check_rank_settings('HardDarkRankLoss', alpha, beta, permute_len)
        super().__init__(
            loss_weight, gather=gather, alpha=alpha, beta=beta, permute_len=permute_len, normalize=normalize
        )

    def relation(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare as the function does."""
        return hard_dark_rank(student, teacher, **self.settings)
