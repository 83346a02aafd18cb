"""Relation losses exactly as their papers and first implementations write them: plain, slow, without any safeguard.

The oracle of the fast forms in :mod:`mmkd_ext.functional` and the yardstick of ``benchmark.py``. Written from the
formulas, with the order of operations and the tensors of the published code named in each docstring, and checked
against that code's outputs in ``tests/integration/test_published_forms.py``.

Shape suffixes: N samples, D dims, K categories.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    'attention_transfer',
    'correlation_exact',
    'correlation_matrix',
    'correlation_rows',
    'hard_dark_rank',
    'inter_category',
    'intra_category',
    'recall_at_k',
    'rkd_angle',
    'rkd_distance',
    'similarity_preserving',
    'soft_target',
]


def rkd_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """RKD, distance: Gram matrix, root, mean over positive distances (lenscloth/RKD)."""
    with torch.no_grad():
        relation_t_NN = _relative_distances(teacher_ND)
    return F.smooth_l1_loss(_relative_distances(student_ND), relation_t_NN)


def rkd_angle(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """RKD, angle: N x N x D unit differences, N products of matrices (lenscloth/RKD)."""
    with torch.no_grad():
        cosine_t_NNN = _angle_cosines(teacher_ND)
    return F.smooth_l1_loss(_angle_cosines(student_ND), cosine_t_NNN)


def similarity_preserving(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """SP: Gram matrices with rows of length 1 (RepDistiller)."""
    gap_NN = F.normalize(teacher_ND @ teacher_ND.T) - F.normalize(student_ND @ student_ND.T)
    return gap_NN.square().sum() / len(student_ND) ** 2


def correlation_rows(student_ND: Tensor, teacher_ND: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """CCKD, Taylor polynomial on features of length 1, one row of the kernel at a time (torchdistill)."""

    def kernel(x_ND: Tensor) -> Tensor:
        unit_ND = F.normalize(x_ND)
        rows = []
        for x_D in unit_ND:
            product_N = x_D @ unit_ND.T
            series_N = sum((2 * gamma) ** p / math.factorial(p) * product_N**p for p in range(order + 1))
            rows.append(math.exp(-2 * gamma) * series_N)
        return torch.stack(rows)

    return (kernel(student_ND) - kernel(teacher_ND)).square().mean()


def correlation_matrix(student_ND: Tensor, teacher_ND: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """CCKD, Taylor polynomial on features of length 1, power by power of the whole matrix (Knowledge-Distillation-Zoo).

    The same numbers as :func:`correlation_rows`, and the faster of the two.
    """

    def kernel(x_ND: Tensor) -> Tensor:
        unit_ND = F.normalize(x_ND)
        product_NN = unit_ND @ unit_ND.T
        total_NN = torch.zeros_like(product_NN)
        for p in range(order + 1):
            total_NN = total_NN + math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * product_NN**p
        return total_NN

    return F.mse_loss(kernel(student_ND), kernel(teacher_ND))


def correlation_exact(student_ND: Tensor, teacher_ND: Tensor, gamma: float = 0.4) -> Tensor:
    """CCKD, the Gaussian kernel that the polynomial stands for, from N x N x D differences as the paper defines it."""

    def kernel(x_ND: Tensor) -> Tensor:
        unit_ND = F.normalize(x_ND)
        return (-gamma * (unit_ND[:, None] - unit_ND).square().sum(dim=2)).exp()

    return (kernel(student_ND) - kernel(teacher_ND)).square().mean()


def intra_category(student_ND: Tensor, teacher_ND: Tensor, labels_N: Tensor) -> Tensor:
    """CSKD, deviations from the category's centre, category by category; mean over samples."""
    total = 0
    for category in labels_N.unique():
        s_D, t_D = student_ND[labels_N == category], teacher_ND[labels_N == category]
        total = total + ((t_D - t_D.mean(dim=0)) - (s_D - s_D.mean(dim=0))).square().sum()
    return total / len(student_ND)


def inter_category(student_ND: Tensor, teacher_ND: Tensor, labels_N: Tensor) -> Tensor:
    """CSKD, cosines between the categories' centres; mean over pairs of categories."""

    def cosines(x_ND: Tensor) -> Tensor:
        centre_KD = torch.stack([x_ND[labels_N == category].mean(dim=0) for category in labels_N.unique()])
        return F.cosine_similarity(centre_KD[:, None], centre_KD, dim=2)

    return (cosines(student_ND) - cosines(teacher_ND)).square().mean()


def hard_dark_rank(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """DarkRank: likelihood of the teacher's first four neighbours, alpha = beta = 3, raw embeddings (lenscloth/RKD)."""
    score_s_NN, score_t_NN = (-3 * _distances(x_ND) ** 3 for x_ND in (student_ND, teacher_ND))
    order_NN = score_t_NN.sort(dim=1, descending=True).indices[:, 1:]
    ranked_NN = score_s_NN.gather(1, order_NN[:, :4])
    later_NN = torch.stack([ranked_NN[:, r:].logsumexp(dim=1) for r in range(ranked_NN.shape[1])], dim=1)
    return (later_NN - ranked_NN).sum(dim=1).mean()


def attention_transfer(student_NCYX: Tensor, teacher_NCYX: Tensor) -> Tensor:
    """Attention transfer: mean of squares over channels, scaled to length 1 (lenscloth/RKD)."""
    s_NP, t_NP = (F.normalize(x.pow(2).mean(dim=1).flatten(1)) for x in (student_NCYX, teacher_NCYX))
    return (s_NP - t_NP).pow(2).mean()


def soft_target(student_ND: Tensor, teacher_ND: Tensor, temperature: float = 4.0) -> Tensor:
    """Hinton's soft targets as Kullback-Leibler divergence (RepDistiller)."""
    log_q_ND, p_ND = F.log_softmax(student_ND / temperature, dim=1), F.softmax(teacher_ND / temperature, dim=1)
    return F.kl_div(log_q_ND, p_ND, reduction='sum') * temperature**2 / len(student_ND)


def recall_at_k(x_ND: Tensor, labels_N: Tensor, ks: tuple[int, ...] = (1, 2, 4, 8)) -> list[float]:
    """Recall@K from all distances and one sorted list of neighbours per sample (lenscloth/RKD)."""
    found_NK = labels_N[_distances(x_ND).topk(1 + max(ks), dim=1, largest=False).indices[:, 1:]]
    hit_NK = found_NK == labels_N[:, None]
    return [hit_NK[:, :k].any(dim=1).float().mean().item() for k in ks]


def _distances(x_ND: Tensor, smallest: float = 1e-12) -> Tensor:
    square_N = x_ND.pow(2).sum(dim=1)
    square_NN = (square_N[:, None] + square_N - 2 * (x_ND @ x_ND.T)).clamp(min=smallest)
    distance_NN = square_NN.sqrt().clone()
    distance_NN[range(len(x_ND)), range(len(x_ND))] = 0
    return distance_NN


def _relative_distances(x_ND: Tensor) -> Tensor:
    distance_NN = _distances(x_ND)
    return distance_NN / distance_NN[distance_NN > 0].mean()


def _angle_cosines(x_ND: Tensor) -> Tensor:
    unit_NND = F.normalize(x_ND[None] - x_ND[:, None], dim=2)
    return (unit_NND @ unit_NND.transpose(1, 2)).view(-1)
