"""Puts what a discovery found into the form that the report and the CSV are written from.

Suffixes: N images, D dims, K known classes, C known and novel classes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover.inference import Predictions
from mmkd_ext.ops.distances import unit_features
from mmkd_ext.visualization import ClassCount, DiscoveryResult, project

__all__ = ['Trial', 'best_trial', 'discovery_result', 'judge', 'map_points', 'read_curves', 'search_number']

_MAX_PROJECTED = 3000
_NEIGHBOURS = 3
_TEMPERATURE = 0.1
_TILE = 1000


# --------------------------------------------------------------------------------------------------
# The number of novel classes, by discovering with several numbers and comparing how clear the classes come out.
#
# Suffixes: N images, D dims.

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


# --------------------------------------------------------------------------------------------------
# What the report and the CSV are written from.


def discovery_result(
    images: FolderImages,
    predictions: Predictions,
    novel_names: list[str],
    pictures: list[str],
    *,
    title: str,
    curves: Mapping[str, list[tuple[float, float]]],
    trials: Sequence[Trial] | None,
    settings: Mapping[str, Any],
) -> DiscoveryResult:
    """Join images and predictions.

    Args:
        images: What was found.
        predictions: Of all images, in this order.
        novel_names: Names of the novel classes.
        pictures: Files to make thumbnails of.
        title: Heading of the report.
        curves: Name -> (epoch, value).
        trials: Discoveries with several numbers of classes; ``None`` if the number was given.
        settings: What was run.

    Returns:
        Labelled images keep their label; their confidence is that of the model in it.
    """
    given_N = np.array(images.labels)
    labels_N = np.where(given_N >= 0, given_N, predictions.scores_NC.argmax(axis=1))
    rows = np.arange(len(labels_N))
    num_known = len(images.classes)
    return DiscoveryResult(
        title=title,
        paths=images.paths,
        pictures=pictures,
        known_names=images.classes,
        novel_names=novel_names,
        labels=labels_N,
        confidence=predictions.scores_NC[rows, labels_N].clip(0, 1),
        distance=(1 - predictions.cosine_NC[rows, labels_N]).clip(0),
        is_labelled=given_N >= 0,
        points=map_points(predictions.embedding_ND),
        relation_NK=_relation(predictions.cosine_NC, labels_N, num_known),
        curves=curves,
        class_count=trials and _class_count(trials),
        broken=images.broken,
        settings=settings,
    )


def map_points(embedding_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay embeddings out in the plane: t-SNE of at most 3,000 of them, the others between their nearest neighbours.

    Args:
        embedding_ND: (N, D).
        seed: Of the choice and of t-SNE.

    Returns:
        (N, 2): a point that is not chosen is the mean of the three chosen ones of highest cosine.
    """
    if len(embedding_ND) <= _MAX_PROJECTED:
        return project(embedding_ND, seed)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(embedding_ND))[:_MAX_PROJECTED])
    unit_ND = unit_features(embedding_ND)
    points_N2 = np.empty((len(embedding_ND), 2))
    points_N2[chosen] = project(embedding_ND[chosen], seed)
    others = np.setdiff1d(np.arange(len(embedding_ND)), chosen)
    for tile in np.array_split(others, -(-len(others) // _TILE)):
        cosine = unit_ND[tile] @ unit_ND[chosen].T
        nearest = np.argpartition(-cosine, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        points_N2[tile] = points_N2[chosen[nearest]].mean(axis=1)
    return points_N2


def _relation(cosine_NC: np.ndarray, labels_N: np.ndarray, num_known: int) -> np.ndarray:
    """Class relation of Cr-KD, mean over the images of each novel class: probabilities of the known classes alone.

    A novel class without images gets zeros.
    """
    num_novel = cosine_NC.shape[1] - num_known
    scores_NK = softmax(cosine_NC[:, :num_known] / _TEMPERATURE, axis=1)
    relation = np.zeros((num_novel, num_known))
    for novel in range(num_novel):
        members = scores_NK[labels_N == num_known + novel]
        if len(members):
            relation[novel] = members.mean(axis=0)
    return relation


def _class_count(trials: Sequence[Trial]) -> ClassCount:
    return ClassCount(
        candidates=[trial.num_novel for trial in trials],
        scores=[trial.silhouette for trial in trials],
        errors=[trial.silhouette_se for trial in trials],
        chosen=best_trial(trials).num_novel,
        score_name='silhouette (how far apart the classes are)',
    )


def read_curves(work_dir: Path) -> dict[str, list[tuple[float, float]]]:
    """Read the losses that the Runner logged, the last value of each epoch, over all starts of a run."""
    curves: dict[str, dict[float, float]] = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in log.read_text(encoding='utf-8').splitlines():
            values = json.loads(line)
            for name, value in values.items():
                if 'loss' in name and 'epoch' in values:
                    curves.setdefault(name, {})[values['epoch']] = value
    return {name: sorted(points.items()) for name, points in curves.items()}
