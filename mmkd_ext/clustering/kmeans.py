"""k-means: with labelled samples that stay in the cluster of their class, and for superclasses.

Lloyd's algorithm and its start are written by hand where samples have labels: scikit-learn's ``KMeans`` cannot hold
samples in a cluster, and its ``kmeans_plusplus`` cannot start from given centres (``docs/libraries.md``). Without
labels, for superclasses, scikit-learn does it.

Suffixes: N samples, M rows of a tile, D dims, K clusters or superclasses, C labelled classes (the first C clusters).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse

from mmkd_ext.ops.arguments import unit_features

_TILE_VALUES = 2**22
"""Distances, or coordinates, held at a time: 32 MiB in float64."""


@dataclass(frozen=True)
class Clustering:
    """Samples in clusters.

    Attributes:
        ids_N: Cluster of each sample, (N,) int64; that of a labelled sample is its class.
        centre_KD: Mean of each cluster, (K, D) float64.
        inertia: Sum of squared distances of all samples to the centre of their cluster.
        num_iters: Iterations of Lloyd's algorithm.
    """

    ids_N: np.ndarray
    centre_KD: np.ndarray
    inertia: float
    num_iters: int


def semi_supervised_kmeans(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    num_clusters: int,
    *,
    num_inits: int = 10,
    max_iters: int = 300,
    seed: int = 0,
) -> Clustering:
    """Cluster samples, of which some have a label that the clusters must respect.

    The first C centres start as the means of the labelled classes. The others are drawn from the unlabelled samples by
    k-means++, given those centres: the next is a sample with probability proportional to its squared distance to the
    nearest centre so far. Then Lloyd's algorithm (:func:`constrained_lloyd`) runs until no assignment changes. Of
    ``num_inits`` starts the one of the lowest inertia is returned, the first of equals. Features of float32 are
    clustered in float32, and from the best of these clusterings Lloyd's algorithm goes on in float64 to its end.

    Source: Vaze et al., Generalized Category Discovery, CVPR 2022 (arXiv 2201.02609), Sec. 3.2; k-means++ by Arthur and
    Vassilvitskii, 2007. Memory is that of the features and a few arrays of N numbers, whatever K.

    Args:
        features_ND: (N, D) finite floats. The method compares them as they are: make them unit for cosines.
        labels_N: (N,) ints: classes 0..C-1, each of at least one sample, and -1 for unlabelled samples.
        num_clusters: K, C to C plus the number of unlabelled samples.
        num_inits: Number of starts; one is enough when all K clusters are labelled, and all that is then done.
        max_iters: Iterations of Lloyd's algorithm at most.
        seed: Of the starts; start i is the same whatever ``num_inits``.

    Returns:
        The clustering; clusters C.. are those without a label.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, a feature is not finite, a class has no sample, or K or a number of runs is
            out of range.

    Example:
        >>> features = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> semi_supervised_kmeans(features, np.array([0, -1, -1, -1]), num_clusters=2).ids_N  # -1: not labelled
        array([0, 0, 1, 1])
    """
    num_labelled = _check(features_ND, labels_N, num_clusters)
    if min(num_inits, max_iters) < 1:
        raise ValueError(
            f'semi_supervised_kmeans: expected num_inits and max_iters of at least 1 but got {num_inits} and '
            f'{max_iters}; use the defaults'
        )
    num_starts = 1 if num_labelled == num_clusters else num_inits
    starts = (
        _start(features_ND, labels_N, num_clusters, rng)
        for rng in map(np.random.default_rng, np.random.SeedSequence(seed).spawn(num_starts))
    )
    if features_ND.dtype == np.float64:
        runs = (constrained_lloyd(features_ND, labels_N, centre_KD, max_iters=max_iters) for centre_KD in starts)
        return min(runs, key=lambda run: run.inertia)
    # In the short numbers that the features are given in, then from the best of these in float64: seldom a change.
    runs = (_lloyd(features_ND, labels_N, centre_KD, max_iters) for centre_KD in starts)
    best = min(runs, key=lambda run: run.inertia)
    exact = constrained_lloyd(features_ND, labels_N, best.centre_KD, max_iters=max(1, max_iters - best.num_iters))
    return replace(exact, num_iters=best.num_iters + exact.num_iters)


def constrained_lloyd(
    features_ND: np.ndarray, labels_N: np.ndarray, centre_KD: np.ndarray, *, max_iters: int = 300
) -> Clustering:
    """Lloyd's algorithm from given centres, labelled samples staying where they are; inertia never increases.

    A cluster that no sample is nearest to takes the unlabelled sample that is farthest from its centre, of a cluster
    that has others; where all samples lie on their centres it stays empty and keeps its own. All numbers are float64.

    Args:
        features_ND: As for :func:`semi_supervised_kmeans`.
        labels_N: See there.
        centre_KD: (K, D), the centres to begin with.
        max_iters: Iterations at most.

    Returns:
        The clustering; without a limit hit, every unlabelled sample is in the cluster of its nearest centre, the first
        of equally near ones.
    """
    return _lloyd(features_ND, labels_N, centre_KD.astype(np.float64), max_iters)


def _lloyd(features_ND: np.ndarray, labels_N: np.ndarray, centre_KD: np.ndarray, max_iters: int) -> Clustering:
    """Lloyd's algorithm in the dtype of the centres; the inertia is summed in float64."""
    is_free_N, length_N = labels_N < 0, _squared_lengths(features_ND, centre_KD.dtype)
    ids_N = np.full(len(labels_N), -1)
    for num_iters in range(1, max_iters + 1):  # noqa: B007 (reported)
        before_N = ids_N
        ids_N, square_N = _nearest(features_ND, length_N, centre_KD)
        ids_N = np.where(is_free_N, ids_N, labels_N)
        _fill_empty(ids_N, np.where(is_free_N, square_N, 0), len(centre_KD))
        if np.array_equal(ids_N, before_N):
            break
        centre_KD = _means(features_ND, ids_N, centre_KD)
    inertia = sum(
        float(np.square(features_ND[rows] - centre_KD[ids_N[rows]]).sum(dtype=np.float64))
        for rows in _tiles(features_ND, 1)
    )
    return Clustering(ids_N.astype(np.int64), centre_KD, inertia, num_iters)


def nearest_centre(features_ND: np.ndarray, centre_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centre of each sample, tile by tile, in the dtype of the centres.

    Args:
        features_ND: (N, D).
        centre_KD: (K, D).

    Returns:
        Index of the centre, the first of equally near ones, (N,) int64, and squared distance to it, (N,).
    """
    return _nearest(features_ND, _squared_lengths(features_ND, centre_KD.dtype), centre_KD)


def _nearest(features_ND: np.ndarray, square_N: np.ndarray, centre_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do what :func:`nearest_centre` does, given the squared lengths, which a search for centres needs only once."""
    ids_N, nearest_N = np.empty(len(features_ND), dtype=np.int64), np.empty(len(features_ND), dtype=centre_KD.dtype)
    norm_K = np.square(centre_KD).sum(axis=1)
    for rows in _tiles(features_ND, len(centre_KD)):
        square_MK = features_ND[rows].astype(centre_KD.dtype, copy=False) @ (-2 * centre_KD).T
        square_MK += norm_K
        ids_N[rows] = square_MK.argmin(axis=1)
        nearest_N[rows] = np.take_along_axis(square_MK, ids_N[rows, None], axis=1)[:, 0]
    return ids_N, np.maximum(nearest_N + square_N, 0)


def _squared_lengths(features_ND: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    parts = (features_ND[rows].astype(dtype, copy=False) for rows in _tiles(features_ND, 1))
    return np.concatenate([np.einsum('md,md->m', x_MD, x_MD) for x_MD in parts])


def _start(features_ND: np.ndarray, labels_N: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Means of the labelled classes, then k-means++ among the unlabelled samples; float64 of float64, else float32."""
    free = np.flatnonzero(labels_N < 0)
    num_labelled = labels_N.max(initial=-1) + 1
    dtype = np.float64 if features_ND.dtype == np.float64 else np.float32
    centre_KD = np.zeros((num_clusters, features_ND.shape[1]), dtype)
    centre_KD[:num_labelled] = _means(features_ND, labels_N, centre_KD[:num_labelled])
    length_N = _squared_lengths(features_ND, dtype)
    known_KD = centre_KD[:num_labelled]
    square_N = _nearest(features_ND, length_N, known_KD)[1][free] if num_labelled else np.ones(len(free))
    for cluster in range(num_labelled, num_clusters):
        # The choice asks for sums of float64; where all samples lie on a centre, any of them will do.
        square_N = square_N.astype(np.float64, copy=False)
        total = square_N.sum()
        chosen = free[rng.choice(len(free), p=square_N / total if total > 0 else None)]
        centre_KD[cluster] = features_ND[chosen]
        to_new_N = _nearest(features_ND, length_N, centre_KD[cluster : cluster + 1])[1][free]
        is_first = cluster == 0
        square_N = to_new_N if is_first else np.minimum(square_N, to_new_N)
    return centre_KD


def _means(features_ND: np.ndarray, ids_N: np.ndarray, centre_KD: np.ndarray) -> np.ndarray:
    """Means of the clusters; an empty one keeps its centre. Samples with a negative id take no part."""
    members = np.flatnonzero(ids_N >= 0)
    ones = np.ones(len(members), dtype=centre_KD.dtype)
    member_KN = sparse.csr_matrix((ones, (ids_N[members], members)), shape=(len(centre_KD), len(ids_N)))
    size_K = np.bincount(ids_N[members], minlength=len(centre_KD)).astype(centre_KD.dtype)
    total_KD = np.zeros_like(centre_KD)
    for rows in _tiles(features_ND, 1):
        total_KD += member_KN[:, rows] @ features_ND[rows].astype(centre_KD.dtype, copy=False)
    return np.where(size_K[:, None] > 0, total_KD / np.maximum(size_K, 1)[:, None], centre_KD)


def _fill_empty(ids_N: np.ndarray, square_N: np.ndarray, num_clusters: int) -> None:
    """Give each empty cluster, in place, the farthest sample of a cluster that has others."""
    size_K = np.bincount(ids_N, minlength=num_clusters)
    if size_K.all():
        return
    farthest = iter(np.argsort(-square_N, kind='stable')[: np.count_nonzero(square_N)])
    for empty in np.flatnonzero(size_K == 0):
        sample = next((sample for sample in farthest if size_K[ids_N[sample]] > 1), None)
        if sample is None:
            return
        size_K[ids_N[sample]] -= 1
        size_K[empty] = 1
        ids_N[sample] = empty


def _tiles(features_ND: np.ndarray, width: int) -> Iterator[slice]:
    """Rows of which ``width`` numbers each, and their coordinates, fit a tile."""
    step = max(1, _TILE_VALUES // max(width, features_ND.shape[1]))
    return (slice(start, start + step) for start in range(0, len(features_ND), step))


def _check(features_ND: np.ndarray, labels_N: np.ndarray, num_clusters: int) -> int:
    """Refuse what cannot be clustered; returns the number of labelled classes."""
    caller = 'semi_supervised_kmeans'
    if features_ND.ndim != 2 or labels_N.shape != features_ND.shape[:1] or not len(labels_N):
        raise ValueError(
            f'{caller}: expected features (N, D) and labels (N,), N >= 1, but got {features_ND.shape} and '
            f'{labels_N.shape}; give one label per sample, -1 where there is none'
        )
    if labels_N.dtype.kind not in 'iu':
        raise TypeError(f'{caller}: expected integer labels but got {labels_N.dtype}; -1 is for unlabelled samples')
    num_bad = np.count_nonzero(~np.isfinite(features_ND).all(axis=1))
    if num_bad:
        raise ValueError(
            f'{caller}: expected finite features but {num_bad} samples have NaN or infinity; check the model'
        )
    present = np.unique(labels_N[labels_N >= 0])
    if not np.array_equal(present, np.arange(len(present))):
        raise ValueError(
            f'{caller}: expected labelled classes numbered 0, 1, ... without gaps but got {present[:10].tolist()}; '
            'renumber them'
        )
    num_unlabelled = np.count_nonzero(labels_N < 0)
    if not max(len(present), 1) <= num_clusters <= len(present) + num_unlabelled:
        raise ValueError(
            f'{caller}: expected {max(len(present), 1)} to {len(present) + num_unlabelled} clusters but got '
            f'{num_clusters}; there are {len(present)} labelled classes and {num_unlabelled} unlabelled samples'
        )
    return len(present)


# --------------------------------------------------------------------------------------------------
# Superclasses: clusters of features, large enough to sample from.

if TYPE_CHECKING:
    from sklearn.cluster import KMeans, MiniBatchKMeans


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
    unit_ND = unit_features(unit_ND)
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
