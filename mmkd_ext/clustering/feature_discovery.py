"""Known and novel classes among samples of which only features are there, in seconds: the features are not trained.

Whitening by the spread within known classes, a tree of clusters in which known classes stay whole, a cut of the tree,
and rounds of linear discriminants that let every sample choose its class again. What labels can tell is measured by
hiding known classes: *leave-classes-out*. Half of the known classes lose their labels, the method runs as if they were
novel, and the hidden labels say how well they were found again. That decides whether to whiten, and at which height to
cut where the number of classes is unknown.

Shape suffixes: N samples, D dims, K known classes, C classes in all.
"""

from dataclasses import dataclass

import numpy as np

from mmkd_ext.clustering.discriminant import discriminant_scores, principal_axes, within_class_whitening
from mmkd_ext.clustering.labelled_ward import LabelledTree, labelled_ward
from mmkd_ext.clustering.num_classes import unit_features
from mmkd_ext.scores.cluster_accuracy import adjusted_rand_index

__all__ = ['FeatureDiscovery', 'Trial', 'feature_discovery']

_MIN_CLASSES_TO_HIDE = 4
"""Known classes from which half can be hidden: two to learn from and two to be found again."""
_NUM_CUTS = 60
"""Cuts of a tree that a trial looks at."""


@dataclass(frozen=True)
class Trial:
    """One choice of hidden classes.

    Attributes:
        space: ``'plain'`` (unit principal components) or ``'within'`` (whitened).
        agreement: Adjusted Rand index on the labelled samples of the hidden classes at the best cut.
        height: Height of that cut.
        at_edge: Whether it was the first or last cut looked at.
    """

    space: str
    agreement: float
    height: float
    at_edge: bool


@dataclass(frozen=True)
class FeatureDiscovery:
    """What was found.

    Attributes:
        ids_N: Class of each sample, (N,) int64: known ones 0..K-1, novel ones from K, no gaps among novel classes.
        confidence_N: Probability of that class by the last discriminant, at the temperature that suits labelled
            samples; 1 for labelled ones.
        num_known: K.
        num_classes: C, with known classes.
        range: Smallest and largest number that single trials would have chosen; the number itself where it was given.
        space: ``'plain'`` or ``'within'``.
        shrinkage: Of the whitening; NaN without.
        trials: The evidence.
        reason: What was chosen and why, one sentence each.
    """

    ids_N: np.ndarray
    confidence_N: np.ndarray
    num_known: int
    num_classes: int
    range: tuple[int, int]
    space: str
    shrinkage: float
    trials: tuple[Trial, ...]
    reason: tuple[str, ...]

    @property
    def num_novel(self) -> int:
        """Number of novel classes, possibly 0."""
        return self.num_classes - self.num_known


def feature_discovery(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    num_classes: int | None = None,
    *,
    num_dims: int = 512,
    max_nodes: int = 6000,
    num_neighbours: int = 10,
    num_rounds: int = 4,
    num_trials: int = 4,
    trials: tuple[Trial, ...] | None = None,
    seed: int = 0,
) -> FeatureDiscovery:
    """Assign every sample to a known or a novel class.

    Args:
        features_ND: (N, D) finite floats of a pretrained network; made unit here.
        labels_N: (N,) ints, known classes 0..K-1 and -1 for unlabelled samples.
        num_classes: C, known classes included; None to estimate it, which takes four known classes.
        num_dims: Principal components that are looked at.
        max_nodes: Unlabelled samples in the tree at most, drawn at random; its memory is 8 bytes times the square. All
            samples take part in the rounds of discriminants.
        num_neighbours: A sample moves 0.8 of the way to the mean of so many nearest ones before the tree; 0 for none.
        num_rounds: Rounds of discriminants.
        num_trials: Choices of hidden classes.
        trials: Evidence of an earlier call on the same samples, to be used in place of new trials.
        seed: Of the part and of the hidden classes.

    Returns:
        The classes, with what was chosen and why.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes do not fit, features are not finite, labels have gaps, or the number is out of reach, or
            unknown with fewer than four known classes.
    """
    num_known = _check(features_ND, labels_N, num_classes)
    rng = np.random.default_rng(seed)
    unit_ND = unit_features(np.asarray(features_ND, dtype=np.float32))
    part = _part(labels_N, max_nodes, rng)
    if trials is None:
        trials = _trials(unit_ND[part], labels_N[part], num_known, num_dims, num_neighbours, num_trials, rng)
    space, why_space = _choose_space(trials)
    part_labels_N = labels_N[part]
    space_NP, shrinkage = _space(unit_ND[part], part_labels_N, space, num_dims)
    tree = labelled_ward(_smooth(space_NP, num_neighbours), part_labels_N)
    number, span, why_number = _choose_number(tree, trials, space, num_classes)
    ids_N = np.full(len(labels_N), -1)
    ids_N[part] = tree.cut(min(number, tree.num_nodes))
    mean_D, axis_DP = principal_axes(unit_ND, num_dims)
    point_NP = ((unit_ND - mean_D.astype(np.float32)) @ axis_DP.astype(np.float32)).astype(np.float32)
    labelled_N = labels_N >= 0
    score_NC = np.zeros((0, 0))
    for _ in range(num_rounds):
        score_NC = discriminant_scores(point_NP, ids_N, number)
        ids_N = np.where(labelled_N, labels_N, score_NC.argmax(axis=1))
    temperature = _temperature(score_NC, labels_N)
    confidence_N = np.where(labelled_N, 1.0, _top_share(score_NC / temperature))
    present = np.unique(np.concatenate([np.arange(num_known), ids_N]))
    if len(present) < number:
        why_number += f'; {number - len(present)} classes lost all their samples to others in the rounds'
    return FeatureDiscovery(
        ids_N=np.searchsorted(present, ids_N),
        confidence_N=confidence_N,
        num_known=num_known,
        num_classes=len(present),
        range=span,
        space=space,
        shrinkage=shrinkage,
        trials=trials,
        reason=(why_space, why_number),
    )


def _trials(
    unit_ND: np.ndarray,
    labels_N: np.ndarray,
    num_known: int,
    num_dims: int,
    num_neighbours: int,
    num_trials: int,
    rng: np.random.Generator,
) -> tuple[Trial, ...]:
    """Hide half of the known classes, see how well the tree finds them again, with and without whitening."""
    if num_known < _MIN_CLASSES_TO_HIDE:
        return ()
    found = []
    for _ in range(num_trials):
        rank_K = np.append(rng.permutation(num_known), num_known)
        anchors_N = np.where(rank_K[labels_N] < num_known // 2, rank_K[labels_N], -1)
        probe = np.flatnonzero((anchors_N < 0) & (labels_N >= 0))
        for space in ('plain', 'within'):
            space_NP, _ = _space(unit_ND, anchors_N, space, num_dims)
            tree = labelled_ward(_smooth(space_NP, num_neighbours), anchors_N)
            found.append(_best_cut(tree, labels_N, probe, space))
    return tuple(found)


def _best_cut(tree: LabelledTree, labels_N: np.ndarray, probe: np.ndarray, space: str) -> Trial:
    """Cut at which the probes are found again best; the geometric mean of the heights of cuts that are equally good."""
    first = max(tree.num_nodes - len(tree.height_S), 2)
    numbers = np.unique(np.geomspace(first, max(tree.num_nodes / 2, first + 1), _NUM_CUTS).round().astype(int))
    value = np.array([adjusted_rand_index(labels_N[probe], tree.cut(int(number))[probe]) for number in numbers])
    best = np.flatnonzero(value >= value.max() - 1e-9)
    steps = tree.num_nodes - numbers[best] - 1
    height = float(np.exp(np.log(np.maximum(tree.height_S[np.maximum(steps, 0)], 1e-12)).mean()))
    return Trial(space, float(value.max()), height, bool(best[0] == 0 or best[-1] == len(numbers) - 1))


def _choose_space(trials: tuple[Trial, ...]) -> tuple[str, str]:
    if not trials:
        return 'plain', f'not whitened: fewer than {_MIN_CLASSES_TO_HIDE} known classes cannot show that it helps'
    mean = {name: np.mean([trial.agreement for trial in trials if trial.space == name]) for name in ('plain', 'within')}
    words = f'adjusted Rand index on hidden known classes {mean["within"]:.3f} whitened, {mean["plain"]:.3f} plain'
    return ('within', f'whitened: {words}') if mean['within'] > mean['plain'] else ('plain', f'not whitened: {words}')


def _choose_number(
    tree: LabelledTree, trials: tuple[Trial, ...], space: str, num_classes: int | None
) -> tuple[int, tuple[int, int], str]:
    if num_classes is not None:
        return num_classes, (num_classes, num_classes), f'{num_classes} classes: given'
    used = [trial for trial in trials if trial.space == space]
    log_height = np.log([trial.height for trial in used])
    number = max(tree.num_clusters_at(float(np.exp(log_height.mean()))), 1)
    each = sorted(max(tree.num_clusters_at(trial.height), 1) for trial in used)
    edge = sum(trial.at_edge for trial in used)
    why = f'{number} classes: the height at which hidden known classes are found again best; single trials {each}'
    return (
        number,
        (min(each[0], number), max(each[-1], number)),
        why + (f'; in {edge} of {len(used)} trials the best cut was the first or last looked at' if edge else ''),
    )


def _space(unit_ND: np.ndarray, labels_N: np.ndarray, space: str, num_dims: int) -> tuple[np.ndarray, float]:
    if space == 'plain':
        return unit_ND, float('nan')
    whitening = within_class_whitening(unit_ND, labels_N, num_dims=num_dims)
    return whitening.apply(unit_ND), whitening.shrinkage


def _smooth(unit_ND: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Move samples towards the mean of their nearest neighbours: clusters become tighter than the gaps between them."""
    num_neighbours = min(num_neighbours, len(unit_ND) - 1)
    if num_neighbours < 1:
        return unit_ND
    out_ND = np.empty_like(unit_ND)
    for start in range(0, len(unit_ND), 1024):
        rows = np.arange(start, min(start + 1024, len(unit_ND)))
        cosine_MN = unit_ND[rows] @ unit_ND.T
        cosine_MN[np.arange(len(rows)), rows] = -np.inf
        near_Mk = np.argpartition(-cosine_MN, num_neighbours - 1, axis=1)[:, :num_neighbours]
        mean_MD = unit_features(unit_ND[near_Mk].mean(axis=1))
        out_ND[rows] = 0.2 * unit_ND[rows] + 0.8 * mean_MD
    return unit_features(out_ND)


def _part(labels_N: np.ndarray, max_nodes: int, rng: np.random.Generator) -> np.ndarray:
    """All labelled samples and at most so many unlabelled ones; labelled beyond as many are drawn, too."""
    parts = []
    for chosen in (np.flatnonzero(labels_N < 0), np.flatnonzero(labels_N >= 0)):
        if len(chosen) <= max_nodes:
            parts.append(chosen)
            continue
        first = np.unique(labels_N[chosen], return_index=True)[1]  # every class keeps a sample
        parts.append(np.union1d(chosen[first], rng.choice(chosen, max_nodes, replace=False)))
    return np.sort(np.concatenate(parts))


def _temperature(score_NC: np.ndarray, labels_N: np.ndarray) -> float:
    """Of a grid, the temperature of the highest likelihood of the labels of labelled samples."""
    labelled = np.flatnonzero(labels_N >= 0)
    if not len(labelled) or not score_NC.size:
        return 1.0

    def loss(temperature: float) -> float:
        scaled_LC = score_NC[labelled] / temperature
        top_L1 = scaled_LC.max(axis=1, keepdims=True)
        log_sum_L = np.log(np.exp(scaled_LC - top_L1).sum(axis=1)) + top_L1[:, 0]
        return float((log_sum_L - scaled_LC[np.arange(len(labelled)), labels_N[labelled]]).mean())

    return float(min(np.geomspace(1, 100, 21), key=loss))


def _top_share(score_NC: np.ndarray) -> np.ndarray:
    return 1 / np.exp(score_NC - score_NC.max(axis=1, keepdims=True)).sum(axis=1)


def _check(features_ND: np.ndarray, labels_N: np.ndarray, num_classes: int | None) -> int:
    caller = 'feature_discovery'
    if features_ND.ndim != 2 or labels_N.shape != features_ND.shape[:1] or len(labels_N) < 2:
        raise ValueError(
            f'{caller}: expected features (N, D) and labels (N,), N >= 2, but got {features_ND.shape} and '
            f'{labels_N.shape}; give one label per sample, -1 where there is none'
        )
    if labels_N.dtype.kind not in 'iu':
        raise TypeError(f'{caller}: expected integer labels but got {labels_N.dtype}; -1 is for unlabelled samples')
    if not np.isfinite(features_ND).all():
        raise ValueError(f'{caller}: expected finite features but some are NaN or infinite; check the network')
    present = np.unique(labels_N[labels_N >= 0])
    if not np.array_equal(present, np.arange(len(present))):
        raise ValueError(
            f'{caller}: expected known classes numbered 0, 1, ... without gaps but got {present[:10].tolist()}; '
            'renumber them'
        )
    largest = len(present) + int(np.count_nonzero(labels_N < 0))
    if num_classes is not None and not max(len(present), 1) <= num_classes <= largest:
        raise ValueError(
            f'{caller}: expected num_classes from {max(len(present), 1)} to {largest} but got {num_classes}; there are '
            f'{len(present)} known classes'
        )
    if num_classes is None and len(present) < _MIN_CLASSES_TO_HIDE:
        raise ValueError(
            f'{caller}: expected at least {_MIN_CLASSES_TO_HIDE} known classes to estimate the number but got '
            f'{len(present)}; give num_classes'
        )
    return len(present)
