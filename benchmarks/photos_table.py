#!/usr/bin/env python3
"""Accuracy and number of classes on photographs, from cached features: a table and a JSON file.

    photos_table.py FEATURES [--sets grocery birds pbc-cells] [--splits 5] [--trials 4] [--out photos.json]

FEATURES holds one NAME_c224.npz per set, with arrays ``f`` (N, D), of which the first 1280 are the pooled features of
EfficientNet-Lite0, and ``y`` (N,), the true classes. Generalized category discovery: 60 % of the classes are known (50
of 100 birds), half of their images labelled; split s is drawn with seed s. Every finished split is written at once, and
a second start goes on from there.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mmkd_ext.clustering.discriminant import principal_axes, within_class_whitening
from mmkd_ext.clustering.feature_discovery import FeatureDiscovery, feature_discovery
from mmkd_ext.clustering.num_classes import unit_features
from mmkd_ext.scores.cluster_accuracy import cluster_accuracy

NUM_KNOWN = {'birds': 50}


def split(true_N: np.ndarray, seed: int, num_known: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes in random order, known ones first; half of the images of each known class keep their label."""
    rng = np.random.default_rng(seed)
    rank_C = np.empty(true_N.max() + 1, dtype=np.int64)
    rank_C[rng.permutation(len(rank_C))] = np.arange(len(rank_C))
    true_N = rank_C[true_N]
    labels_N = np.full(len(true_N), -1)
    for label in range(num_known):
        members = rng.permutation(np.flatnonzero(true_N == label))
        labels_N[members[: max(1, round(len(members) / 2))]] = label
    return true_N, labels_N


def row_to_beat(unit_ND: np.ndarray, labels_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Whitening in 128 dimensions, Ward, names by Hungarian matching, four rounds of discriminants in that space."""
    space_NP = within_class_whitening(unit_ND, labels_N, num_dims=128, shrinkage=0.1).apply(unit_ND)
    ids_N = fcluster(linkage(space_NP, 'ward'), num_classes, 'maxclust') - 1
    num_known, labelled = labels_N.max() + 1, labels_N >= 0
    table_CK = np.zeros((num_classes, num_known), dtype=int)
    np.add.at(table_CK, (ids_N[labelled], labels_N[labelled]), 1)
    rows, columns = linear_sum_assignment(-table_CK)
    name_C = np.full(num_classes, -1)
    held = table_CK[rows, columns] > 0
    name_C[rows[held]] = columns[held]
    name_C[name_C < 0] = num_known + np.arange((name_C < 0).sum())
    ids_N = np.where(labelled, labels_N, name_C[ids_N])
    for _ in range(4):
        model = LinearDiscriminantAnalysis(solver='lsqr', shrinkage=0.1).fit(space_NP, ids_N)
        ids_N = np.where(labelled, labels_N, model.predict(space_NP))
    return ids_N


def measure(features_ND: np.ndarray, true_N: np.ndarray, seed: int, num_known: int, num_trials: int) -> dict:
    """All methods on one split."""
    true_N, labels_N = split(true_N, seed, num_known)
    num_classes, free = int(true_N.max()) + 1, labels_N < 0
    unit_ND = unit_features(features_ND)
    out = {'num_known': num_known, 'num_classes': num_classes, 'num_trials': num_trials}

    def note(name: str, method: Callable) -> np.ndarray | FeatureDiscovery:
        start, cpu = time.time(), time.process_time()
        found = method()
        ids_N = found if isinstance(found, np.ndarray) else found.ids_N
        score = cluster_accuracy(true_N[free], ids_N[free], num_known=num_known)
        out[name] = {part: round(100 * value, 2) for part, value in score.items()}
        out[name] |= {'wall_s': round(time.time() - start, 1), 'cpu_s': round(time.process_time() - cpu, 1)}
        return found

    mean_D, axis_DP = principal_axes(unit_ND, 128)
    note('k-means', lambda: KMeans(num_classes, n_init=3, random_state=seed).fit_predict((unit_ND - mean_D) @ axis_DP))
    note('row to beat', lambda: row_to_beat(unit_ND, labels_N, num_classes))
    trials = None  # the second call uses the evidence of the first, so its time is without it
    for name, number in (('not given', None), ('given', num_classes)):
        settings = {'num_trials': num_trials, 'trials': trials, 'seed': seed}
        found = note(name, partial(feature_discovery, features_ND, labels_N, number, **settings))
        trials = found.trials
        out[name] |= {'number': found.num_classes, 'range': found.range, 'reason': found.reason}
    return out


def table(results: dict) -> None:
    """Print what was measured."""
    print('| set, split | k-means | row to beat | number given | number not given | estimate (true) |')
    print('|---|---|---|---|---|---|')
    for key, result in results.items():
        cells = [
            ' / '.join(f'{result[name][part]:.1f}' for part in ('all', 'known', 'novel'))
            for name in ('k-means', 'row to beat', 'given', 'not given')
        ]
        print(f'| {key} | {" | ".join(cells)} | {result["not given"]["number"]} ({result["num_classes"]}) |')


def main() -> None:
    """Measure what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('features', type=Path)
    parser.add_argument('--sets', nargs='+', default=['grocery', 'birds', 'pbc-cells'])
    parser.add_argument('--splits', type=int, default=5)
    parser.add_argument('--trials', type=int, default=4, help='choices of hidden classes')
    parser.add_argument('--out', type=Path, default=Path('photos.json'))
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    for seed in range(args.splits):
        for name in args.sets:
            if f'{name} {seed}' in results:
                continue
            stored = np.load(args.features / f'{name}_c224.npz')
            features_ND, true_N = stored['f'][:, :1280].astype(np.float32), stored['y'].astype(np.int64)
            num_known = NUM_KNOWN.get(name, round(0.6 * (true_N.max() + 1)))
            results[f'{name} {seed}'] = measure(features_ND, true_N, seed, num_known, args.trials)
            args.out.write_text(json.dumps(results, indent=1))
    table(results)


if __name__ == '__main__':
    main()
