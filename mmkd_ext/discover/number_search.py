"""The number of novel classes, by discovering with several numbers and comparing how clear the classes come out.

Suffixes: N images, D dims.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmkd_ext.functional.num_classes import unit_features

__all__ = ['Trial', 'best_trial', 'judge', 'search_number']

_MAX_SAMPLES = 5000
"""A silhouette takes the distances of all pairs."""


@dataclass(frozen=True)
class Trial:
    """A discovery with one number of novel classes.

    Attributes:
        num_novel: The number.
        silhouette: Mean silhouette of all images in the classes that they have or were given by the model, in [-1, 1].
        silhouette_se: Its standard error over images.
    """

    num_novel: int
    silhouette: float
    silhouette_se: float


def search_number(first: int, discover: Callable[[int], Trial]) -> list[Trial]:
    """Try a number and both its neighbours, and go on from the best until it lies between worse ones.

    Neighbours are one apart, or a tenth of ``first`` from 15 classes on.

    Args:
        first: Where to begin, at least 1.
        discover: Makes a trial of a number.

    Returns:
        All trials, in the order of their numbers.
    """
    step = max(1, round(first / 10))
    tried: dict[int, Trial] = {}
    place = first
    while True:
        for num_novel in (place, place - step, place + step):
            if num_novel >= 1 and num_novel not in tried:
                tried[num_novel] = discover(num_novel)
        trials = [tried[num_novel] for num_novel in sorted(tried)]
        best = best_trial(trials).num_novel
        if best == place:
            return trials
        place = best


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial of the highest silhouette, the smallest number of equals."""
    return max(trials, key=lambda trial: trial.silhouette)


def judge(num_novel: int, features_ND: np.ndarray, labels_N: np.ndarray) -> Trial:
    """Measure how much nearer images are to their own class than to the next.

    With too few novel classes some hold images that lie apart, with too many some lie among each other: both lower it.
    The features must come from a network that was not trained with this number: one that was draws its own classes
    together, however few there are. Silhouettes by Rousseeuw, 1987.

    Args:
        num_novel: Number of novel classes of the discovery.
        features_ND: (N, D), compared at length 1; the same for all trials.
        labels_N: Class of each image, the given one, or the one that the model found; at least two classes.

    Returns:
        The trial. Of more than 5,000 images, a random part takes part.
    """
    from sklearn.metrics import silhouette_samples  # takes a second: only when there is something to search

    chosen = np.sort(np.random.default_rng(0).permutation(len(labels_N))[:_MAX_SAMPLES])
    values_N = silhouette_samples(unit_features(features_ND[chosen]), labels_N[chosen])
    return Trial(num_novel, float(values_N.mean()), float(values_N.std() / len(values_N) ** 0.5))
