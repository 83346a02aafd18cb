r"""Prototypical networks: a class is the mean of its few examples, a query belongs to the nearest one.

The loss, the classification, and the episodes that both are asked in: few-shot tasks drawn from labelled samples. From
"Prototypical Networks for Few-shot Learning", Snell et al., NeurIPS 2017, arXiv 1703.05175.

Shape suffixes: B samples of an episode, D dims, Q queries, C classes, K shots of each; where episodes are drawn, N
samples, G classes, M samples of the largest, E episodes, W ways, S samples of each way.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmkd_ext.ops.arguments import check_dims, full_precision


@full_precision
def prototypical_loss(embedding: Tensor, labels: Tensor, num_shots: int) -> Tensor:
    r"""How unlikely the queries of an episode find their own class.

    .. math:: \ell = -\frac{1}{|Q|} \sum_{i \in Q} \log \frac{\exp(-\lVert x_i - c_{y_i} \rVert^2)}
        {\sum_k \exp(-\lVert x_i - c_k \rVert^2)}, \qquad c_k = \frac{1}{|S_k|} \sum_{j \in S_k} x_j

    Eq. 1, 2 and algorithm 1 of arXiv 1703.05175. The shots :math:`S_k` are the first K samples of each class in the
    batch, the queries :math:`Q` all others: the order of the classes does not matter, nor that of the shots or that of
    the queries. No step makes the host wait for an accelerator.

    Args:
        embedding: :math:`x`, shape (B, D).
        labels: :math:`y`, shape (B,), any integers.
        num_shots: K, at least 1. A class with K samples or less is a prototype without query.

    Returns:
        Loss, a scalar in nats; a differentiable 0 for a batch without queries.

    Raises:
        ValueError: If ``num_shots`` is below 1, or there is not one label per sample.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [2.0], [1.0]]), torch.tensor([0, 0, 1, 1])
        >>> prototypical_loss(x, labels, num_shots=1)  # both queries lie half-way: log 2
        tensor(0.6931)
    """
    caller = 'prototypical_loss'
    check_dims(caller, 'B D', embedding=embedding)
    if num_shots < 1:
        raise ValueError(
            f'{caller}: expected num_shots >= 1 but got {num_shots}; a class without shots has no prototype'
        )
    if labels.shape != embedding.shape[:1]:
        raise ValueError(
            f'{caller}: expected one label per sample, shape ({len(embedding)},), but got {tuple(labels.shape)}; '
            'use single-label samples'
        )
    if len(embedding) == 0:
        return embedding.sum()
    same_BB = labels[:, None] == labels
    position_B = same_BB.tril(-1).sum(dim=1)
    is_shot_B, is_first_B = position_B < num_shots, position_B == 0
    # A prototype per sample, that of its class; the first sample of a class stands for it among the candidates.
    share_BB = (same_BB & is_shot_B).to(embedding.dtype)
    prototype_BD = share_BB @ embedding / share_BB.sum(dim=1, keepdim=True)
    logits_BB = -_squared_distances(embedding, prototype_BD).masked_fill(~is_first_B, torch.inf)
    target_B = (same_BB & is_first_B).int().argmax(dim=1)
    loss_B = functional.cross_entropy(logits_BB, target_B, reduction='none')
    return loss_B.masked_fill(is_shot_B, 0).sum() / (~is_shot_B).sum().clamp(min=1)


@full_precision
def nearest_prototype(support: Tensor, query: Tensor) -> Tensor:
    """Classify queries by the nearest class mean, in Euclidean distance.

    Args:
        support: K shots of each of C classes, shape (..., C, K, D).
        query: Shape (..., Q, D).

    Returns:
        Positions of the classes, shape (..., Q), int64.

    Example:
        >>> support = torch.tensor([[[0.0], [2.0]], [[10.0], [12.0]]])
        >>> nearest_prototype(support, torch.tensor([[3.0], [9.0]]))
        tensor([0, 1])
    """
    return _squared_distances(query, support.mean(dim=-2)).argmin(dim=-1)


def _squared_distances(query_QD: Tensor, prototype_CD: Tensor) -> Tensor:
    """Shape (..., Q, C), >= 0, precise also far from the origin."""
    # Distances do not see a shift, so no gradient goes through it; without it the products would drown differences.
    shift_D = prototype_CD.detach().mean(dim=-2, keepdim=True)
    query_QD, prototype_CD = query_QD - shift_D, prototype_CD - shift_D
    square_Q1 = query_QD.square().sum(dim=-1, keepdim=True)
    square_C = prototype_CD.square().sum(dim=-1).unsqueeze(-2)
    return (square_Q1 + square_C - 2 * query_QD @ prototype_CD.transpose(-1, -2)).clamp(min=0)


def draw_episodes(
    labels: np.ndarray, num_ways: int, num_samples: int, num_episodes: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw episodes: different classes, and different samples of each.

    Args:
        labels: (N,), any integers.
        num_ways: W.
        num_samples: S, shots and queries of a class together.
        num_episodes: E.
        generator: Source of all chance.

    Returns:
        Indices of samples, (E, W, S) int64, in random order within a way.

    Raises:
        ValueError: If there are fewer than W classes, or a class has fewer than S samples.

    Example:
        >>> labels = np.repeat([0, 1, 2], 4)
        >>> draw_episodes(labels, num_ways=2, num_samples=3, num_episodes=5, generator=np.random.default_rng(0)).shape
        (5, 2, 3)
    """
    _, label_N, size_G = np.unique(labels, return_inverse=True, return_counts=True)
    num_small = np.count_nonzero(size_G < num_samples)
    if len(size_G) < num_ways or num_small:
        raise ValueError(
            f'draw_episodes: expected at least {num_ways} classes, each with at least {num_samples} samples, but got '
            f'{len(size_G)}, of which {num_small} are smaller; ask for fewer ways, shots or queries'
        )
    by_class_N = np.argsort(label_N, kind='stable')
    first_G = np.cumsum(size_G) - size_G
    episodes = np.empty((num_episodes, num_ways, num_samples), dtype=np.int64)
    for episode in episodes:
        ways = generator.choice(len(size_G), num_ways, replace=False)
        key_WM = generator.random((num_ways, size_G.max()))
        key_WM[np.arange(size_G.max()) >= size_G[ways, None]] = np.inf
        episode[:] = by_class_N[first_G[ways, None] + key_WM.argsort(axis=1)[:, :num_samples]]
    return episodes
