"""Novel class discovery exactly as published code computes it: one problem at a time, plain, without any safeguard.

The oracle of the batched forms in :mod:`mmkd_ext.functional` and the yardstick of ``benchmark.py``. Written from
the formulas of UNO and Cr-KD, with the order of operations of their code, and checked against that code's outputs in
``tests/integration/test_published_forms.py``.

Shape suffixes: V views, H heads, B rows, U unlabelled rows, C classes, K known classes; n labels.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional as F

__all__ = ['class_relation_kd', 'cluster_scores', 'sinkhorn', 'sinkhorn_each', 'swapped_prediction']


@torch.no_grad()
def sinkhorn(logits_BC: Tensor, epsilon: float = 0.05, num_iters: int = 3) -> Tensor:
    """Assign the rows of one view and head: scale rows and columns of the exponential in turn."""
    q_CB = torch.exp(logits_BC / epsilon).T
    num_prototypes, num_rows = q_CB.shape
    q_CB /= q_CB.sum()
    for _ in range(num_iters):
        q_CB /= q_CB.sum(dim=1, keepdim=True)
        q_CB /= num_prototypes
        q_CB /= q_CB.sum(dim=0, keepdim=True)
        q_CB /= num_rows
    return (q_CB * num_rows).T


def sinkhorn_each(logits_VHBC: Tensor) -> Tensor:
    """One call of :func:`sinkhorn` per view and head, written into a tensor of zeros, as the training step does."""
    targets_VHBC = torch.zeros_like(logits_VHBC)
    for v in range(logits_VHBC.shape[0]):
        for h in range(logits_VHBC.shape[1]):
            targets_VHBC[v, h] = sinkhorn(logits_VHBC[v, h])
    return targets_VHBC


def swapped_prediction(logits_VHBC: Tensor, targets_VHBC: Tensor, num_large: int, temperature: float = 0.1) -> Tensor:
    """UNO: cross-entropy between each pair of views, averaged over pairs; shape (H,)."""
    loss = 0
    for v in range(num_large):
        for o in set(range(len(logits_VHBC))) - {v}:
            log_prob_HBC = F.log_softmax(logits_VHBC[o] / temperature, dim=-1)
            loss = loss - (targets_VHBC[v] * log_prob_HBC).sum(dim=-1).mean(dim=1)
    return loss / (num_large * (len(logits_VHBC) - 1))


def class_relation_kd(
    student_VHUC: Tensor, teacher_VHUK: Tensor, temperature: float = 0.1, kd_temperature: float = 4.0
) -> Tensor:
    """Cr-KD: cross-entropy over known classes, weighted by the student's known mass; shape (H,)."""
    num_known = teacher_VHUK.shape[-1]
    s_VHUC, t_VHUK = student_VHUC / temperature, teacher_VHUK.detach() / temperature
    p_VHUK = torch.softmax(t_VHUK / kd_temperature, dim=-1)
    q_VHUK = torch.softmax(s_VHUC[..., :num_known] / kd_temperature, dim=-1)
    mass_VHU1 = torch.softmax(s_VHUC / kd_temperature, dim=-1)[..., :num_known].sum(dim=-1, keepdim=True)
    weight_VHU1 = mass_VHU1 / mass_VHU1.mean()
    loss_VHU = torch.sum(-torch.log(q_VHUK) * p_VHUK * kd_temperature**2 * weight_VHU1, dim=-1)
    return loss_VHU.mean(dim=(0, 2))


def cluster_scores(true_n: np.ndarray, pred_n: np.ndarray) -> tuple[float, float, float]:
    """Hungarian accuracy with a table counted sample by sample, NMI and ARI of scikit-learn."""
    size = max(true_n.max(), pred_n.max()) + 1
    table = np.zeros((size, size), dtype=np.int64)
    for i in range(len(true_n)):
        table[pred_n[i], true_n[i]] += 1
    matching = zip(*linear_sum_assignment(table.max() - table), strict=True)
    accuracy = sum(table[p, t] for p, t in matching) / len(true_n)
    return accuracy, normalized_mutual_info_score(true_n, pred_n), adjusted_rand_score(true_n, pred_n)
