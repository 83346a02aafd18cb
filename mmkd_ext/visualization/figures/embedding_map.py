"""Two-dimensional map of embeddings, coloured by true class and by discovered class."""

from collections.abc import Sequence

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mmkd_ext.ops.arguments import unit_features
from mmkd_ext.visualization.figures import style

_PCA_DIMS = 50
_PERPLEXITY = 30.0
_MANY_CLASSES = 20
"""Above this number of classes, names are smaller and stand above their points instead of on them."""

_LETTER = (0.021, 0.045)
"""Width and height of a letter at body size, as a share of the map's width."""

_FEW_POINTS = 8
"""Below this number of points a neighbourhood map says nothing; the two main axes are shown instead."""


def project(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay embeddings out in the plane: unit length, PCA to at most 50 dims, t-SNE (van der Maaten & Hinton, 2008).

    Unit length, because the classifiers compare directions (cosines) only.

    Args:
        embeddings: (points, D), any float dtype, at least one point.
        seed: Seed of PCA and t-SNE; the same input gives the same map.

    Returns:
        np.ndarray: Coordinates without unit, float64, (points, 2).
    """
    if len(embeddings) == 1:
        return np.zeros((1, 2))
    unit = unit_features(embeddings.astype(np.float64))
    reduced = PCA(min(_PCA_DIMS, *unit.shape), random_state=seed).fit_transform(unit)
    if len(unit) < _FEW_POINTS:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(_PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init='pca', learning_rate='auto', random_state=seed).fit_transform(
        np.pad(reduced, ((0, 0), (0, max(0, 2 - reduced.shape[1]))))
    )


def _overlap(box: np.ndarray, others: list[np.ndarray]) -> bool:
    """Whether a box ((left, bottom), (right, top)) touches any of the others."""
    return any(bool((box[0] < other[1]).all() and (other[0] < box[1]).all()) for other in others)


def _name_groups(axes: Axes, points: np.ndarray, groups: np.ndarray, names: Sequence[str], num_known: int) -> None:
    """Write the names of groups, novel and large ones first; a name that would touch another is left out."""
    sizes = np.bincount(groups)
    present = np.flatnonzero(sizes)
    is_crowded = len(present) > _MANY_CLASSES
    type_size = style.SMALL - 1.5 if is_crowded else style.BODY
    letter = np.array(_LETTER) * np.ptp(points, axis=0).max() * type_size / style.BODY
    placed: list[np.ndarray] = []
    for group in sorted(present.tolist(), key=lambda group: (group < num_known, -sizes[group])):
        members = points[groups == group]
        place = np.median(members, axis=0)
        if is_crowded:
            place[1] += letter[1]
        half = letter * (len(names[group]), 1) / 2
        box = np.stack([place - half, place + half])
        if _overlap(box, placed):
            continue
        placed.append(box)
        weight = 'bold' if group >= num_known else 'normal'
        text = axes.text(place[0], place[1], names[group], size=type_size, weight=weight, ha='center', va='center')
        text.set_path_effects([patheffects.withStroke(linewidth=2.0, foreground='white', alpha=0.85)])


def _dot_size(num_points: int) -> float:
    """Area of a dot in square points."""
    return float(np.clip(9000 / num_points, 5, 14))


def _scatter(axes: Axes, points: np.ndarray, groups: np.ndarray, is_known: np.ndarray) -> None:
    """Novel classes as filled dots, known ones as small open rings."""
    colours = np.array([style.class_colour(group) for group in groups.tolist()])
    size = _dot_size(max(len(points), 1))
    x, y = points.T
    axes.scatter(
        x[is_known],
        y[is_known],
        s=size * 0.8,
        facecolors='none',
        edgecolors=colours[is_known],
        linewidths=0.5,
        alpha=0.8,
    )
    axes.scatter(x[~is_known], y[~is_known], s=size, c=colours[~is_known], linewidths=0, alpha=0.8)


@style.styled
def embedding_map_figure(
    points: np.ndarray,
    labels: np.ndarray,
    discovered: np.ndarray,
    class_names: Sequence[str],
    num_known: int,
    *,
    num_samples: int,
    title: str,
) -> Figure:
    """Draw the map twice: coloured by true class, and by the class matched with the discovered cluster.

    Where discovery is right, both panels have the same colours; points that are wrong carry a ring in the right one.

    Args:
        points: Coordinates from :func:`project`, (points, 2).
        labels: True classes, known first, ints in [0, T), (points,).
        discovered: Class matched with each point's cluster, ints in [-1, T), (points,); -1 for none.
        class_names: Names of the T classes.
        num_known: Number of known classes K.
        num_samples: Number of samples that the points were drawn from.
        title: What the samples are.

    Returns:
        Figure: Two panels.
    """
    figure = style.new_figure(7.6, 4.4)
    left, right = figure.subplots(1, 2)
    is_known = labels < num_known
    _scatter(left, points, labels, is_known)
    _name_groups(left, points, labels, class_names, num_known)
    left.set_title('True class')

    matched = discovered >= 0
    right.scatter(*points[~matched].T, s=6, c=style.MUTED, marker='x', linewidths=0.5)
    _scatter(right, points[matched], discovered[matched], discovered[matched] < num_known)
    wrong = labels != discovered
    ring = 2.2 * _dot_size(len(points))
    right.scatter(*points[wrong].T, s=ring, facecolors='none', edgecolors=style.TEXT, linewidths=0.5)
    right.set_title(f'Discovered class ({wrong.mean():.1%} wrong, ringed)')
    _name_groups(right, points[matched], discovered[matched], class_names, num_known)
    for axes in (left, right):
        style.blank(axes)
        axes.set_aspect('equal')
    drawn = f'{num_samples} images'
    if len(points) < num_samples:
        drawn = f'{len(points)} of {num_samples} images, drawn at random'
    kinds = '; filled and bold: novel, open: known' if is_known.any() and not is_known.all() else ''
    style.set_titles(figure, title, f't-SNE of the embeddings, {drawn}{kinds}')
    return figure
