"""How many classes there are among samples of which some are labelled: an estimate from features.

Two opinions are asked. *Labelled accuracy*: hide the labels of some known classes, the probes, cluster, and see how
well the clusters find the probes again; with too few clusters classes are merged, with too many they are split. It
rests on true labels, but is flat around its top, the flatter the fewer the known classes. *Silhouette*: how much nearer
samples are to their own cluster than to the next; it needs no labels and knows nothing of them. The first says which
numbers are admissible, the second chooses among those.

Suffixes: N samples, D dims, K known classes, R repetitions.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import sem

from mmkd_ext.clustering.kmeans import semi_supervised_kmeans
from mmkd_ext.ops.arguments import unit_features
from mmkd_ext.scores.cluster_accuracy import cluster_accuracy

__all__ = ['CurvePoint', 'NumClasses', 'estimate_num_classes']

_GRID_POINTS = 10
"""Numbers of classes that one round of the search tries."""
_MAX_SILHOUETTE_SAMPLES = 2000
"""A silhouette takes the distances of all pairs."""


@dataclass(frozen=True)
class CurvePoint:
    """What was found with one number of clusters.

    Attributes:
        num_classes: Number of clusters, known classes included.
        accuracy: Labelled accuracy, mean over choices of probes, in [0, 1]; NaN with fewer than two known classes.
        accuracy_se: Its standard error.
        silhouette: Mean silhouette over clusterings of all samples without labels, in [-1, 1].
        silhouette_se: Its standard error.
    """

    num_classes: int
    accuracy: float
    accuracy_se: float
    silhouette: float
    silhouette_se: float


@dataclass(frozen=True)
class NumClasses:
    """An estimate of the number of classes, and what it rests on.

    Attributes:
        estimate: Number of classes, known ones included: the best silhouette among the admissible numbers.
        num_known: Number of known classes.
        by_accuracy: Opinion of the labelled accuracy alone; None if there are no probes.
        by_silhouette: Opinion of the silhouette alone, over all numbers that were tried.
        admissible: Numbers whose labelled accuracy is within two standard errors of the best; all, without probes.
        curve: All numbers tried, ascending.
        at_edge: Whether the estimate is the largest number that was to be tried, so that there are at least so many.
    """

    estimate: int
    num_known: int
    by_accuracy: int | None
    by_silhouette: int
    admissible: tuple[int, ...]
    curve: tuple[CurvePoint, ...]
    at_edge: bool = False

    @property
    def num_novel(self) -> int:
        """Estimated number of novel classes, possibly 0."""
        return self.estimate - self.num_known

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, with ``num_novel``, as JSON takes it: None for NaN."""
        content = {'num_novel': self.num_novel, **asdict(self)}
        for point in content['curve']:
            point.update({name: None for name, value in point.items() if np.isnan(value)})
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> 'NumClasses':
        """Return what :meth:`to_dict` was made from."""
        values = {name: value for name, value in content.items() if name != 'num_novel'}
        nan: Any = np.nan
        curve = (
            CurvePoint(**{name: nan if value is None else value for name, value in point.items()})
            for point in content['curve']
        )
        return cls(**{**values, 'admissible': tuple(content['admissible']), 'curve': tuple(curve)})


def estimate_num_classes(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    *,
    max_classes: int | None = None,
    max_samples: int = 5000,
    num_repeats: int = 8,
    seed: int = 0,
    progress: Callable[[CurvePoint], None] | None = None,
) -> NumClasses:
    """Estimate the number of classes by semi-supervised k-means on unit features and a bracketing search.

    For each number tried, ``num_repeats`` times: a random half of the known classes are anchors, whose labels
    semi-supervised k-means respects; the other known classes are probes, clustered like unlabelled samples, and the
    accuracy on them after Hungarian matching is the *labelled accuracy*. The same choices of anchors serve all numbers.
    Silhouettes are those of k-means without labels. The search begins with a grid over the whole range and goes on
    between the neighbours of the best number until there is nothing between them; the decision is over all numbers
    tried.

    The features decide what can be found. Those of a network trained on the labelled classes alone do not separate the
    others; use a representation that has seen the unlabelled images, such as :class:`mmkd_ext.models.GCD`'s
    (``embedding``, not its projection).

    Source: anchors, probes and search after Vaze et al., Generalized Category Discovery, CVPR 2022 (arXiv 2201.02609),
    Sec. 3.3, which takes the maximum of the accuracy. On digits, with two to three probes, that is flat from 7 to 12
    classes; hence the second opinion. Silhouettes by Rousseeuw, 1987.

    Args:
        features_ND: (N, D) finite floats; made unit here.
        labels_N: (N,) ints, known classes 0..K-1 and -1 for unlabelled samples.
        max_classes: Largest number tried, known classes included. By default the search begins with 4 K + 20, as far
            as samples reach, and goes on to twice as many whenever the largest number is the best, up to one class for
            two unlabelled samples.
        max_samples: Of more samples a random part is looked at, the same share of every class (at least five of each)
            and of the unlabelled ones.
        num_repeats: R, at least 2.
        seed: Of the part, the anchors and the clusterings.
        progress: Called with each point as it is found.

    Returns:
        The estimate. With no or one known class there are no probes, so it is the silhouette's alone. An estimate at
        the end of the search is also said by a warning: it is a lower bound.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If there are fewer than three samples or no unlabelled one, ``max_classes`` is below what is known
            or above what is there, features are not finite, or a setting is out of range.
    """
    caller = 'estimate_num_classes'
    if num_repeats < 2 or max_samples < 3:
        raise ValueError(
            f'{caller}: expected num_repeats >= 2 and max_samples >= 3 but got {num_repeats} and {max_samples}; '
            'a standard error takes two values'
        )
    if len(labels_N) < 3 or (labels_N >= 0).all():
        raise ValueError(
            f'{caller}: expected at least three samples, unlabelled ones among them, but got {len(labels_N)} of which '
            f'{np.count_nonzero(labels_N < 0)} are unlabelled; mark these by -1'
        )
    rng = np.random.default_rng(seed)
    chosen = _subsample(labels_N, max_samples, rng)
    labels_N, unit_ND = labels_N[chosen], unit_features(features_ND[chosen])
    num_known = int(labels_N.max()) + 1
    smallest, largest, limit = _range(caller, labels_N, num_known, max_classes)
    trial = _Trial(unit_ND, labels_N, num_known, num_repeats, rng)
    curve = _search(trial, smallest, largest, limit, progress or (lambda _: None))
    admissible = _admissible(curve)
    estimate = _by_silhouette(admissible)
    at_edge = bool(estimate == limit > smallest)
    if at_edge:
        warnings.warn(
            f'{caller}: expected a best number within the search but it is {estimate}, the edge: there are at least so '
            f'many classes; {"raise max_classes" if max_classes is not None else "give more unlabelled samples"}',
            stacklevel=2,
        )
    return NumClasses(
        estimate=estimate,
        num_known=num_known,
        by_accuracy=None if np.isnan(curve[0].accuracy) else max(curve, key=lambda point: point.accuracy).num_classes,
        by_silhouette=_by_silhouette(curve),
        admissible=tuple(point.num_classes for point in admissible),
        curve=tuple(curve),
        at_edge=at_edge,
    )


class _Trial:
    """Tries numbers of clusters, all with the same anchors and seeds."""

    def __init__(
        self, unit_ND: np.ndarray, labels_N: np.ndarray, num_known: int, num_repeats: int, rng: np.random.Generator
    ) -> None:
        self.unit_ND, self.labels_N, self.num_repeats = unit_ND, labels_N, num_repeats
        self.orders_RK = [rng.permutation(num_known) for _ in range(num_repeats)] if num_known > 1 else []
        num_shown = min(len(unit_ND), _MAX_SILHOUETTE_SAMPLES)
        self.shown = np.sort(rng.choice(len(unit_ND), num_shown, replace=False))

    def __call__(self, num_classes: int) -> CurvePoint:
        accuracy_R = [self._accuracy(num_classes, seed, order_K) for seed, order_K in enumerate(self.orders_RK)]
        silhouette_R = [self._silhouette(num_classes, seed) for seed in range(self.num_repeats)]
        return CurvePoint(num_classes, *_mean_and_error(accuracy_R), *_mean_and_error(silhouette_R))

    def _accuracy(self, num_classes: int, seed: int, order_K: np.ndarray) -> float:
        """Labelled accuracy with one choice of anchors: the first half of an order of the known classes."""
        num_anchors = len(order_K) // 2
        rank_K = np.argsort(order_K)
        # An unlabelled sample, whose label -1 reads the appended last entry, has no rank.
        rank_N = np.append(rank_K, len(order_K))[self.labels_N]
        is_probe_N = (rank_N >= num_anchors) & (self.labels_N >= 0)
        anchors_N = np.where(rank_N < num_anchors, rank_N, -1)
        ids_N = semi_supervised_kmeans(self.unit_ND, anchors_N, num_classes, num_inits=3, seed=seed).ids_N
        return cluster_accuracy(self.labels_N[is_probe_N], ids_N[is_probe_N])['all']

    def _silhouette(self, num_classes: int, seed: int) -> float:
        """Silhouette of one clustering without labels; the worst, -1, where it leaves one cluster."""
        from sklearn.cluster import KMeans  # takes a second: only when there is something to estimate
        from sklearn.metrics import silhouette_score

        ids = KMeans(num_classes, n_init=3, random_state=seed).fit(self.unit_ND).labels_[self.shown]
        if not 1 < len(np.unique(ids)) < len(ids):
            return -1.0
        return float(silhouette_score(self.unit_ND[self.shown], ids))


def _search(
    trial: Callable[[int], CurvePoint],
    smallest: int,
    largest: int,
    limit: int,
    progress: Callable[[CurvePoint], None],
) -> list[CurvePoint]:
    """Try a grid, then grids between the neighbours of the best, until there is nothing between them.

    As long as the largest number is the best, up to ``limit``, the next grid reaches to twice as many.
    """
    tried: dict[int, CurvePoint] = {}
    while True:
        grid = {round(number) for number in np.geomspace(smallest, largest, _GRID_POINTS)}
        for num_classes in sorted(grid - tried.keys()):
            tried[num_classes] = trial(num_classes)
            progress(tried[num_classes])
        curve = [tried[num_classes] for num_classes in sorted(tried)]
        numbers = [point.num_classes for point in curve]
        place = numbers.index(_by_silhouette(_admissible(curve)))
        smallest, largest = numbers[max(place - 1, 0)], numbers[min(place + 1, len(numbers) - 1)]
        if place == len(numbers) - 1 and largest < limit:
            largest = min(2 * largest, limit)
            continue
        if not set(range(smallest, largest + 1)) - tried.keys():
            return curve


def _admissible(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Points whose labelled accuracy is within two standard errors, its own and that of the best, of the best."""
    if np.isnan(curve[0].accuracy):
        return list(curve)
    best = max(curve, key=lambda point: point.accuracy)
    return [
        point
        for point in curve
        if point.accuracy >= best.accuracy - 2 * float(np.hypot(best.accuracy_se, point.accuracy_se))
    ]


def _by_silhouette(curve: Iterable[CurvePoint]) -> int:
    return max(curve, key=lambda point: point.silhouette).num_classes


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float('nan'), float('nan')
    return float(np.mean(values)), float(sem(values))


def _range(caller: str, labels_N: np.ndarray, num_known: int, max_classes: int | None) -> tuple[int, int, int]:
    """Smallest and largest number of classes to begin with, and the largest that may be tried."""
    smallest = max(num_known, 2)
    num_unlabelled = np.count_nonzero(labels_N < 0)
    reachable = min(num_known + num_unlabelled, len(labels_N) - 1)
    if max_classes is None:
        largest = min(4 * num_known + 20, reachable)
        limit = max(largest, min(num_known + num_unlabelled // 2, reachable))
    else:
        largest = limit = max_classes
    if not smallest <= largest <= reachable:
        raise ValueError(
            f'{caller}: expected max_classes from {smallest} to {reachable} but got {largest}; there are {num_known} '
            f'known classes and {num_unlabelled} unlabelled samples'
        )
    return smallest, largest, limit


def _subsample(labels_N: np.ndarray, max_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of a random part, the same share of each class and of the unlabelled samples, in order."""
    if len(labels_N) <= max_samples:
        return np.arange(len(labels_N))
    share = max_samples / len(labels_N)
    parts = []
    for label in np.unique(labels_N):
        members = rng.permutation(np.flatnonzero(labels_N == label))
        parts.append(members[: max(5, round(share * len(members)))])
    return np.sort(np.concatenate(parts))
