"""Which discovered cluster stands for which true class.

Shape suffixes: K known classes, N clusters of the novel head, C = K + N outputs, T true classes.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

UNMATCHED = -1
"""Class of a cluster that the assignment leaves without one (more clusters than classes)."""


def contingency_table(labels: np.ndarray, clusters: np.ndarray, num_classes: int, num_clusters: int) -> np.ndarray:
    """Count samples per true class and cluster.

    Args:
        labels: True classes, ints in [0, num_classes), (samples,).
        clusters: Assigned clusters, ints in [0, num_clusters), (samples,).
        num_classes: Number of rows T.
        num_clusters: Number of columns C.

    Returns:
        np.ndarray: int64 counts, (T, C).
    """
    counts_TC = np.zeros((num_classes, num_clusters), dtype=np.int64)
    np.add.at(counts_TC, (labels, clusters), 1)
    return counts_TC


def match_clusters(counts_TC: np.ndarray) -> np.ndarray:
    """Assign each cluster to at most one class so that the largest number of samples agrees (Hungarian method).

    Args:
        counts_TC: Counts per true class and cluster, (T, C).

    Returns:
        np.ndarray: Class of each cluster, int64, (C,); :data:`UNMATCHED` where there is none, which includes every
        cluster that shares no sample with the class it would get.
    """
    classes, clusters = linear_sum_assignment(counts_TC, maximize=True)
    matched_C = np.full(counts_TC.shape[1], UNMATCHED, dtype=np.int64)
    agrees = counts_TC[classes, clusters] > 0
    matched_C[clusters[agrees]] = classes[agrees]
    return matched_C
