"""Order of the neighbours of a sample (DarkRank).

Shape suffixes: N samples, D dims, R ranked neighbours.
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_pair, check_positive, full_precision, unit_rows
from mmkd_ext.ops.geometry import squared_distances

_SMALLEST = 1e-12


@full_precision
def hard_dark_rank(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha: float = 3.0,
    beta: float = 3.0,
    permute_len: int = 4,
    normalize: bool = True,
) -> Tensor:
    r"""How unlikely the student finds the order in which the teacher ranks a sample's nearest neighbours.

    .. math:: \ell = -\frac{1}{N} \sum_i \sum_{r=1}^{R} \Big( S_{i \pi_r} - \log \sum_{m=r}^{R} e^{S_{i \pi_m}} \Big),
        \qquad S_{ij} = -\alpha \lVert s_i - s_j \rVert^\beta

    :math:`\pi` are the teacher's :math:`R` nearest neighbours of sample :math:`i`, nearest first. Of the teacher only
    this order matters; of the student's distances to all other samples nothing does.

    The hard variant of "DarkRank: Accelerating Deep Metric Learning via Cross Sample Similarities Transfer", Chen et
    al., AAAI 2018, arXiv 1707.01220, in the form of the official code of RKD (lenscloth/RKD), which compares with it.
    The loss is not 0 for equal networks: ranks are drawn, even the right order has a probability below 1.

    Args:
        student: Embeddings :math:`s`, shape (N, ...).
        teacher: Embeddings of the same samples, shape (N, ...); no gradient flows to them.
        alpha: :math:`\alpha`, 3 in the official code; its training script passes 2.
        beta: :math:`\beta`, 3 in the official code.
        permute_len: :math:`R`; fewer in a batch with less than R + 1 samples.
        normalize: Scale embeddings to length 1 first, as the networks of that code do by default. False is its function
            on embeddings as they come; the loss grows with their length to the power of :math:`\beta`.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        TypeError: If a setting is not a number.
        ValueError: If a setting is out of range, the numbers of samples differ, or a value is NaN
            (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.6, 0.8], [0.8, 0.6], [1.0, 0.0], [-1.0, 0.0]])
        >>> hard_dark_rank(x, x) < hard_dark_rank(x[[0, 3, 2, 1, 4]], x)  # neighbours in another order
        tensor(True)
    """
    caller = 'hard_dark_rank'
    check_rank_settings(caller, alpha, beta, permute_len)
    check_pair(caller, student, teacher)
    num_samples = len(student)
    if num_samples < 2:
        return student[:0].sum()
    student_ND, teacher_ND = student.flatten(1), teacher.detach().flatten(1)
    if normalize:
        student_ND, teacher_ND = unit_rows(student_ND), unit_rows(teacher_ND)

    far_NN = squared_distances(teacher_ND).fill_diagonal_(torch.inf)
    nearest_NR = far_NN.topk(min(permute_len, num_samples - 1), dim=1, largest=False).indices
    square_NR = squared_distances(student_ND).gather(1, nearest_NR)
    # Bounded from below: a power under 1 of the square, that is beta < 2, has no slope at 0.
    score_NR = -alpha * square_NR.clamp(min=_SMALLEST) ** (beta / 2)
    num_ranks = score_NR.shape[1]
    passed_RR = torch.ones(num_ranks, num_ranks, dtype=torch.bool, device=score_NR.device).tril(diagonal=-1)
    remaining_NR = score_NR[:, None].masked_fill(passed_RR, -torch.inf).logsumexp(dim=2)
    return (remaining_NR - score_NR).sum(dim=1).mean()


def check_rank_settings(caller: str, alpha: float, beta: float, permute_len: int) -> None:
    """Refuse settings that :func:`hard_dark_rank` cannot use; modules call it when they are built.

    Args:
        caller: Function or class that speaks in the error.
        alpha: Positive.
        beta: Positive.
        permute_len: At least 2: one neighbour has no order.

    Raises:
        TypeError: If ``alpha`` or ``beta`` is not a number.
        ValueError: If a setting is out of range.
    """
    check_positive(caller, alpha=alpha, beta=beta)
    if not (isinstance(permute_len, int) and permute_len >= 2):
        raise ValueError(f'{caller}: expected permute_len >= 2 but got {permute_len!r}; one neighbour has no order')
