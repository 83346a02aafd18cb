"""How well clusters agree with true classes: accuracy after matching, NMI, ARI; and which cluster stands for which.

All is read off one table of clusters and classes (:func:`contingency_table`); who wants several scores counts once, by
:class:`Contingency`. Labels are integers >= 0, as numpy arrays, torch tensors or sequences; the K known classes come
first.

Shape suffixes: n samples, P clusters, T true classes, K known classes.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from mmkd_ext.ops.arguments import check_choice

Labels = torch.Tensor | ArrayLike

UNMATCHED = -1
"""Class of a cluster that the assignment leaves without one (more clusters than classes)."""


class Contingency:
    """How many samples of each true class are in each predicted cluster: counted once, read by every score.

    Args:
        y_true: True classes, shape (n,).
        y_pred: Predicted clusters, shape (n,).
        caller: Function or class that speaks in the error.

    Attributes:
        table_PT: Samples of predicted cluster p and true class t, int64, square: up to the largest label of either.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes differ, there are no samples, or a label is negative.
    """

    def __init__(self, y_true: Labels, y_pred: Labels, *, caller: str = 'Contingency') -> None:
        true_n, pred_n = (_as_labels(caller, name, y) for name, y in (('y_true', y_true), ('y_pred', y_pred)))
        if true_n.shape != pred_n.shape:
            raise ValueError(
                f'{caller}: expected y_true and y_pred of one length but got {len(true_n)} and {len(pred_n)}; '
                f'gather both from the same samples'
            )
        size = max(true_n.max(), pred_n.max()) + 1
        self.table_PT = contingency_table(pred_n, true_n, size, size)

    def accuracy(self, *, num_known: int | None = None, protocol: str = 'v2') -> dict[str, float]:
        """Accuracy after the best one-to-one matching; see :func:`cluster_accuracy`."""
        caller = 'cluster_accuracy'
        check_choice(caller, ('v1', 'v2', 'v3'), protocol=protocol)
        num_known = num_known or 0
        if num_known < 0:
            raise ValueError(f'{caller}: expected num_known >= 0 but got {num_known}; count the known classes')
        table_PT = self.table_PT
        unmatched_K = table_PT.diagonal()[:num_known]
        if protocol == 'v2':
            hits_T = _hits_after_matching(table_PT)
        else:
            novel_PN = table_PT[num_known if protocol == 'v3' else 0 :, num_known:]
            hits_T = np.concatenate([unmatched_K, _hits_after_matching(novel_PN)])
        hits_all = _hits_after_matching(table_PT).sum() if protocol == 'v1' else hits_T.sum()
        size_T = table_PT.sum(axis=0)
        return {
            'all': _ratio(hits_all, size_T.sum()),
            'known': _ratio(hits_T[:num_known].sum(), size_T[:num_known].sum()),
            'novel': _ratio(hits_T[num_known:].sum(), size_T[num_known:].sum()),
        }

    def normalized_mutual_info(self) -> float:
        """Mutual information over the mean entropy; see :func:`normalized_mutual_info`."""
        joint_PT = self.table_PT / self.table_PT.sum()
        entropy_joint = _entropy(joint_PT)
        entropy_sum = _entropy(joint_PT.sum(axis=0)) + _entropy(joint_PT.sum(axis=1))
        if entropy_sum == 0:
            return 1.0
        return float(np.clip(2 * (entropy_sum - entropy_joint) / entropy_sum, 0.0, 1.0))

    def adjusted_rand_index(self) -> float:
        """Agreement on pairs of samples, corrected for chance; see :func:`adjusted_rand_index`."""
        table_PT = self.table_PT
        together = _num_pairs(table_PT)
        together_true, together_pred = _num_pairs(table_PT.sum(axis=0)), _num_pairs(table_PT.sum(axis=1))
        pairs = _num_pairs(table_PT.sum())
        # Multiplied by the number of pairs, all is exact in Python's integers, which products of pairs need.
        above_chance = 2 * (together * pairs - together_true * together_pred)
        at_most = (together_true + together_pred) * pairs - 2 * together_true * together_pred
        return above_chance / at_most if at_most else 1.0


def cluster_accuracy(
    y_true: Labels, y_pred: Labels, *, num_known: int | None = None, protocol: str = 'v2'
) -> dict[str, float]:
    """Accuracy after the best one-to-one matching of clusters to classes.

    Protocols differ in what is matched, and so in what known and novel mean:

    ========  ====================  ==================  ==========================================
    protocol  all                   known               novel
    ========  ====================  ==================  ==========================================
    ``v1``    one matching of all   no matching         a second matching, of novel samples only
    ``v2``    one matching of all   from that matching  from that matching
    ``v3``    known and novel hits  no matching         one matching, of clusters and classes >= K
    ========  ====================  ==================  ==========================================

    Without matching, a cluster is the class of the same number. v2 is the task-agnostic number of the papers; the
    task-aware one is ``'all'`` of the novel samples alone. v1 is that of Cr-KD; the code of GCD ("Generalized Category
    Discovery", Vaze et al., CVPR 2022) matches the known samples, too.

    Where several matchings are equally good, ``'all'`` of v1 and v2 is the same for each, the other numbers may not be.

    Args:
        y_true: True classes, shape (n,).
        y_pred: Predicted clusters, shape (n,).
        num_known: Number of known classes :math:`K`; None is 0, all classes are novel.
        protocol: ``'v1'``, ``'v2'`` or ``'v3'``.

    Returns:
        ``all``, ``known`` and ``novel``, each in [0, 1]; NaN for a part without samples.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes differ, there are no samples, a label or ``num_known`` is negative, or ``protocol`` is
            unknown.

    Example:
        >>> cluster_accuracy([0, 0, 1, 1], [1, 1, 1, 0], num_known=1)  # one of four is wrong
        {'all': 0.75, 'known': 1.0, 'novel': 0.5}
    """
    return Contingency(y_true, y_pred, caller='cluster_accuracy').accuracy(num_known=num_known, protocol=protocol)


def normalized_mutual_info(y_true: Labels, y_pred: Labels) -> float:
    r"""Mutual information of clusters and classes over the arithmetic mean of their entropies.

    :math:`\mathrm{NMI} = 2 I(Y; \hat Y) / (H(Y) + H(\hat Y))`. Two partitions of one part each agree completely: 1.

    Args:
        y_true: True classes, shape (n,).
        y_pred: Predicted clusters, shape (n,).

    Returns:
        NMI in [0, 1].

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes differ, there are no samples, or a label is negative.

    Example:
        >>> normalized_mutual_info([0, 0, 1, 1], [0, 1, 0, 1])  # clusters say nothing about classes
        0.0
    """
    return Contingency(y_true, y_pred, caller='normalized_mutual_info').normalized_mutual_info()


def adjusted_rand_index(y_true: Labels, y_pred: Labels) -> float:
    r"""Share of sample pairs on which two partitions agree, corrected for chance.

    :math:`\mathrm{ARI} = (S - E) / (\frac12 (A + B) - E)` with :math:`S` pairs together in both partitions, :math:`A`
    and :math:`B` in each, and :math:`E = A B / \binom n2` expected. Two trivial partitions that are equal give 1.

    From "Comparing Partitions", Hubert and Arabie, Journal of Classification 1985, Eq. 5.

    Args:
        y_true: True classes, shape (n,).
        y_pred: Predicted clusters, shape (n,).

    Returns:
        ARI in [-0.5, 1]; 0 is chance.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes differ, there are no samples, or a label is negative.

    Example:
        >>> adjusted_rand_index([0, 0, 1, 1], [1, 1, 0, 0])  # names of clusters do not matter
        1.0
    """
    return Contingency(y_true, y_pred, caller='adjusted_rand_index').adjusted_rand_index()


def contingency_table(labels: np.ndarray, clusters: np.ndarray, num_classes: int, num_clusters: int) -> np.ndarray:
    """Count samples per true class and cluster.

    Args:
        labels: True classes, ints in [0, num_classes), (samples,).
        clusters: Assigned clusters, ints in [0, num_clusters), (samples,).
        num_classes: Number of rows T.
        num_clusters: Number of columns P.

    Returns:
        np.ndarray: int64 counts, (T, P).
    """
    cell_n = labels * np.int64(num_clusters)
    cell_n += clusters
    return np.bincount(cell_n, minlength=num_classes * num_clusters).reshape(num_classes, num_clusters)


def match_clusters(counts_TP: np.ndarray) -> np.ndarray:
    """Assign each cluster to at most one class so that the largest number of samples agrees (Hungarian method).

    Args:
        counts_TP: Counts per true class and cluster, (T, P).

    Returns:
        np.ndarray: Class of each cluster, int64, (P,); :data:`UNMATCHED` where there is none, which includes every
        cluster that shares no sample with the class it would get.
    """
    clusters, classes = linear_sum_assignment(counts_TP.T, maximize=True)
    matched_P = np.full(counts_TP.shape[1], UNMATCHED, dtype=np.int64)
    agrees = counts_TP[classes, clusters] > 0
    matched_P[clusters[agrees]] = classes[agrees]
    return matched_P


def _as_labels(caller: str, name: str, y: Labels) -> np.ndarray:
    labels_n = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if labels_n.ndim != 1 or labels_n.size == 0:
        raise ValueError(
            f'{caller}: expected {name} of shape (n,), n >= 1, but got {labels_n.shape}; flatten, drop none'
        )
    if not np.issubdtype(labels_n.dtype, np.integer):
        raise TypeError(f'{caller}: expected integer {name} but got {labels_n.dtype}; pass class indices, not scores')
    if labels_n.min() < 0:
        raise ValueError(
            f'{caller}: expected {name} >= 0 but got {labels_n.min()}; -1 is a hidden label, evaluate on true ones'
        )
    return labels_n.astype(np.int64, copy=False)


def _hits_after_matching(table_PT: np.ndarray) -> np.ndarray:
    """Correct samples of each true class under the one-to-one matching that has most of them."""
    matched_P = match_clusters(table_PT.T)
    hits_T = np.zeros(table_PT.shape[1], dtype=np.int64)
    clusters = np.flatnonzero(matched_P != UNMATCHED)
    hits_T[matched_P[clusters]] = table_PT[clusters, matched_P[clusters]]
    return hits_T


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else float('nan')


def _entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def _num_pairs(counts: np.ndarray) -> int:
    return int((counts * (counts - 1) // 2).sum())
