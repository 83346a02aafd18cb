"""Superclasses: clusters of features, large enough to sample from.

Suffixes: N samples, D dims, K superclasses.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.cluster import KMeans, MiniBatchKMeans

__all__ = ['superclasses']

_EXACT_LIMIT = 1e10
"""Multiplications of one iteration, N * K * D, up to which all samples are in it: at most seconds on one core."""


def superclasses(features_ND: np.ndarray, num_superclasses: int, *, seed: int = 0, min_size: int = 1) -> np.ndarray:
    """Cluster features of length 1 by k-means with k-means++ and a fixed seed.

    Up to ``N * K * D = 1e10`` by Lloyd's algorithm, above by mini-batches of 4096, both of scikit-learn. A cluster
    smaller than ``min_size``, an empty one included, is dissolved, smallest first: each of its samples goes to the
    nearest of the centres that are left. So there can be fewer than K superclasses.

    Source: clusters of the teacher's features as superclasses are those of Peng et al., Correlation Congruence for
    Knowledge Distillation, ICCV 2019 (arXiv 1904.01802), Sec. 3.4; k-means++ by Arthur and Vassilvitskii, 2007;
    mini-batches by Sculley, 2010.

    Args:
        features_ND: (N, D) floats, of any length.
        num_superclasses: K, 1..N.
        seed: Of the initial centres.
        min_size: Samples that each superclass must have.

    Returns:
        (N,) int64, numbered from 0 without gaps.

    Raises:
        ValueError: If there are fewer samples than K or ``min_size``, or a feature is not finite.
    """
    num_samples = len(features_ND)
    if not 1 <= num_superclasses <= num_samples or min_size > num_samples:
        raise ValueError(
            f'superclasses: expected 1 to {num_samples} superclasses, of at most {num_samples} samples each, but got '
            f'{num_superclasses} of at least {min_size}; the features are of {num_samples} samples'
        )
    unit_ND = features_ND.astype(np.float32)
    if not np.isfinite(unit_ND).all():
        num_bad = np.count_nonzero(~np.isfinite(unit_ND).all(axis=1))
        raise ValueError(
            f'superclasses: expected finite features but {num_bad} of {num_samples} samples have NaN or infinity; '
            "check the teacher's weights and normalization"
        )
    length_N = np.linalg.norm(unit_ND, axis=1, keepdims=True)
    np.divide(unit_ND, length_N, out=unit_ND, where=length_N > 0)
    model = _algorithm(num_superclasses, unit_ND.size, seed).fit(unit_ND)
    ids_N = _merge_small(unit_ND, model.labels_.astype(np.int64), model.cluster_centers_, min_size)
    return np.unique(ids_N, return_inverse=True)[1]


def _algorithm(num_clusters: int, num_values: int, seed: int) -> 'KMeans | MiniBatchKMeans':
    from sklearn.cluster import KMeans, MiniBatchKMeans  # takes a second: only when there is something to cluster

    if num_values * num_clusters <= _EXACT_LIMIT:
        return KMeans(num_clusters, n_init=1, random_state=seed)
    # scikit-learn moves small clusters elsewhere at random, which costs iterations; here they are merged.
    return MiniBatchKMeans(num_clusters, n_init=1, random_state=seed, batch_size=4096, reassignment_ratio=0)


def _merge_small(unit_ND: np.ndarray, ids_N: np.ndarray, centre_KD: np.ndarray, min_size: int) -> np.ndarray:
    size_K = np.bincount(ids_N, minlength=len(centre_KD))
    left = np.ones(len(centre_KD), dtype=bool)
    while size_K[left].min() < min_size:
        smallest = np.flatnonzero(left)[size_K[left].argmin()]
        left[smallest] = False
        members = np.flatnonzero(ids_N == smallest)
        distance = np.square(centre_KD[left]).sum(axis=1) - 2 * unit_ND[members] @ centre_KD[left].T
        ids_N[members] = np.flatnonzero(left)[distance.argmin(axis=1)]
        size_K = np.bincount(ids_N, minlength=len(centre_KD))
    return ids_N
