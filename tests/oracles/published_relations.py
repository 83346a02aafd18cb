"""Relation losses exactly as their papers and first implementations write them: plain, slow, without any safeguard.

The oracle of the fast forms in :mod:`mmkd_ext.functional` and the yardstick of ``benchmark.py``. Written from the
formulas, with the order of operations and the tensors of the published code named in each docstring, and checked
against that code's outputs in ``tests/integration/test_published_forms.py``.

Shape suffixes: N samples, D dims, K categories, C classes.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    'attention_transfer',
    'batch_class_correlation',
    'class_transport',
    'correlation_exact',
    'correlation_matrix',
    'correlation_rows',
    'hard_dark_rank',
    'inter_category',
    'intra_category',
    'patch_cka',
    'patch_gram',
    'patch_softmax',
    'prediction_correlation',
    'probabilistic_transfer',
    'recall_at_k',
    'rkd_angle',
    'rkd_distance',
    'similarity_direction',
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


def patch_gram(student_NLD: Tensor, teacher_NLD: Tensor, negatives: str = 'keep') -> Tensor:
    """Gram anchoring: cosines of the patches of each image, mean of squares over all (facebookresearch/dinov3)."""
    s_NLL, t_NLL = (F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).mT for x in (student_NLD, teacher_NLD))
    if negatives == 'clip':
        s_NLL, t_NLL = s_NLL.relu(), t_NLL.relu()
    elif negatives == 'clip-shared':
        s_NLL, t_NLL = torch.where((s_NLL < 0) & (t_NLL < 0), 0.0, s_NLL), t_NLL.relu()
    return F.mse_loss(s_NLL, t_NLL)


def patch_softmax(student_NLD: Tensor, teacher_NLD: Tensor, temperature: float = 0.07) -> Tensor:
    """Softmaxed cosines of a patch to all of its image, KL, mean over patches (lightly-ai/lightly-train)."""
    s_NLL, t_NLL = (F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).mT for x in (student_NLD, teacher_NLD))
    log_q_ML, p_ML = (
        softmax(x.flatten(0, 1) / temperature, dim=-1) for softmax, x in ((F.log_softmax, s_NLL), (F.softmax, t_NLL))
    )
    return F.kl_div(log_q_ML, p_ML, reduction='batchmean')


def patch_cka(student_NLD: Tensor, teacher_NLD: Tensor) -> Tensor:
    """PaKa: one minus the CKA of the patches' linear kernels, by the L x L centring matrix, mean over images."""
    num_patches = student_NLD.shape[1]
    centre_LL = torch.eye(num_patches, dtype=student_NLD.dtype, device=student_NLD.device) - 1 / num_patches
    k_NLL, m_NLL = (centre_LL @ (x @ x.mT) @ centre_LL for x in (student_NLD, teacher_NLD))
    pairs = ((k_NLL, m_NLL), (k_NLL, k_NLL), (m_NLL, m_NLL))
    product_N, square_k_N, square_m_N = ((x * y).sum(dim=(1, 2)) for x, y in pairs)
    return (1 - product_N / (square_k_N.sqrt() * square_m_N.sqrt())).mean()


def prediction_correlation(
    student_NC: Tensor,
    teacher_NC: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    multi_label: bool = False,
    eps: float = 1e-8,
) -> Tensor:
    """DIST: Pearson's correlation as the cosine of deviations, along rows, then along columns (hunto/DIST_KD)."""

    def unlike(x: Tensor, y: Tensor) -> Tensor:
        x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
        return 1 - ((x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1) + eps)).mean()

    predict = torch.sigmoid if multi_label else partial(torch.softmax, dim=1)
    q_NC, p_NC = (predict(x / temperature) for x in (student_NC, teacher_NC))
    return temperature**2 * (beta * unlike(q_NC, p_NC) + gamma * unlike(q_NC.T, p_NC.T))


def probabilistic_transfer(student_ND: Tensor, teacher_ND: Tensor, eps: float = 1e-7) -> Tensor:
    """PKT: cosines, shifted to [0, 1], as probabilities of a row, mean over all pairs (passalis/probabilistic_kt)."""

    def probability(x_ND: Tensor) -> Tensor:
        unit_ND = x_ND / x_ND.norm(dim=1, keepdim=True)
        similar_NN = (unit_ND @ unit_ND.T + 1) / 2
        return similar_NN / similar_NN.sum(dim=1, keepdim=True)

    p_NN, q_NN = probability(teacher_ND), probability(student_ND)
    return (p_NN * ((p_NN + eps) / (q_NN + eps)).log()).mean()


def batch_class_correlation(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 4.0) -> Tensor:
    """MLKD, batch and class level: products of softened predictions, either way (mdistiller's forks)."""
    q_NC, p_NC = (F.softmax(x / temperature, dim=1) for x in (student_NC, teacher_NC))
    of_batch = ((p_NC @ p_NC.T - q_NC @ q_NC.T) ** 2).sum() / len(q_NC)
    return of_batch + ((p_NC.T @ p_NC - q_NC.T @ q_NC) ** 2).sum() / q_NC.shape[1]


def similarity_direction(student_NC: Tensor, teacher_NC: Tensor, tikhonov: float = 0.1) -> Tensor:
    """SKD: difference of Gram matrices, Mahalanobis length of its rows by an inverse (HyunJunSik/StreamLined)."""
    s_NN, t_NN = (F.normalize(x) @ F.normalize(x).T / x.shape[1] for x in (student_NC, teacher_NC))
    gap_NN = s_NN - t_NN
    spread_NN = torch.cov(gap_NN.T) + tikhonov * torch.eye(len(gap_NN), dtype=gap_NN.dtype, device=gap_NN.device)
    inverse_NN = torch.cholesky_inverse(torch.linalg.cholesky(spread_NN))
    return torch.einsum('bi,ij,bj->b', gap_NN, inverse_NN, gap_NN).sqrt().mean()


def class_transport(
    student_NC: Tensor,
    teacher_NC: Tensor,
    cost_CC: Tensor,
    labels_N: Tensor | None = None,
    temperature: float = 2.0,
    epsilon: float = 0.05,
    num_iters: int = 10,
) -> Tensor:
    """WKD-L: a plan for each sample, from its own copy of the costs with the target's row and column cut out."""
    num_samples, num_classes = student_NC.shape
    cost_NCC = cost_CC.expand(num_samples, -1, -1)
    if labels_N is not None:
        kept_NC = torch.arange(num_classes, device=labels_N.device) != labels_N[:, None]
        student_NC, teacher_NC = (x[kept_NC].view(num_samples, -1) for x in (student_NC, teacher_NC))
        size = num_classes - 1
        cost_NCC = cost_NCC[kept_NC[:, :, None] & kept_NC[:, None]].view(num_samples, size, size)
    q_NC1, p_NC1 = (F.softmax(x / temperature, dim=1)[:, :, None] for x in (student_NC, teacher_NC))
    kernel_NCC = (-cost_NCC / epsilon).exp()
    u_NC1 = torch.full_like(q_NC1, 1 / q_NC1.shape[1])
    for _ in range(num_iters):
        v_NC1 = p_NC1 / (kernel_NCC.mT @ u_NC1)
        u_NC1 = q_NC1 / (kernel_NCC @ v_NC1)
    return (u_NC1 * kernel_NCC * v_NC1.mT * cost_NCC).sum(dim=(1, 2)).mean()


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
