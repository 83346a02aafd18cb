"""The metric of novel class discovery: accuracy after matching, NMI and ARI, per split and head, and as a table.

Shape suffixes: H heads, K known classes, N clusters of a novel head, C = K + N.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmkd_ext.evaluation.retrieval_metric import check_fields
from mmkd_ext.functional.uno import lowest_objective
from mmkd_ext.io import table
from mmkd_ext.registry import METRICS
from mmkd_ext.scores.cluster_accuracy import Contingency


@dataclass(frozen=True, slots=True)
class Prediction:
    """Truth and answers of one sample.

    Attributes:
        split: Name of the evaluation split that the sample belongs to.
        label: True class, known first, >= 0.
        task_aware: Cluster in [0, N) chosen by each novel head alone, H ints; empty without novel head.
        task_agnostic: Class in [0, C) chosen among known and novel logits, H ints; one int in [0, K) without
            novel head.
    """

    split: str
    label: int
    task_aware: tuple[int, ...]
    task_agnostic: tuple[int, ...]


def read_prediction(sample: Mapping[str, Any], *, num_known: int, caller: str) -> Prediction:
    """Reduce a predicted data sample to integers.

    Args:
        sample: ``DataSample.to_dict()`` after prediction: ``gt_label`` (1,), ``split_name``, ``known_logits`` (K,) and,
            with a novel head, ``novel_logits`` (H, N).
        num_known: Number of known classes K.
        caller: Name of the caller in messages.

    Returns:
        Prediction: Truth and answers.

    Raises:
        KeyError: A field is missing.
        ValueError: The label is hidden, or the known head has another width than K.
    """
    check_fields(
        caller,
        sample,
        split_name="wrap the data in NovelClassSplit and pack it with PackInputs(meta_keys=('split_name', ...))",
        gt_label='evaluate on data that has labels',
        known_logits='evaluate an NCDClassifier',
    )
    label = int(sample['gt_label'])
    if label < 0:
        raise ValueError(f'{caller}: expected labels >= 0 in evaluation data but got {label}; set hide_labels=False')
    known_K = torch.as_tensor(sample['known_logits'])
    if known_K.shape != (num_known,):
        raise ValueError(
            f'{caller}: expected known_logits of shape ({num_known},) but got {tuple(known_K.shape)}; '
            "make num_known equal to the known head's num_classes"
        )
    if 'novel_logits' not in sample:
        return Prediction(sample['split_name'], label, (), (int(known_K.argmax()),))
    novel_HN = torch.as_tensor(sample['novel_logits'])
    all_HC = torch.cat([known_K.expand(len(novel_HN), -1), novel_HN], dim=1)
    task_aware, task_agnostic = novel_HN.argmax(dim=1).tolist(), all_HC.argmax(dim=1).tolist()
    return Prediction(sample['split_name'], label, tuple(task_aware), tuple(task_agnostic))


def best_head(head_objective: Sequence[float]) -> int:
    """Choose a head without looking at labels: the one with the lowest mean training objective (UNO).

    Args:
        head_objective: Mean training objective of each of H heads, lower is better; NaN where a head was never trained.

    Returns:
        int: Index of the head; 0 when none was trained.
    """
    objective_H = torch.as_tensor(head_objective, dtype=torch.float64)
    return int(lowest_objective(objective_H)) if len(objective_H) else 0


# --------------------------------------------------------------------------------------------------
# The numbers as a table for a console.

_COLUMNS = ('all', 'known', 'novel', 'NMI', 'ARI')

_ROWS = {
    'task-aware': (None, None, 'novel_acc', 'novel_nmi', 'novel_ari'),
    'task-agnostic v1': ('v1_all', 'v1_known', 'v1_novel', None, None),
    'task-agnostic v2': ('v2_all', 'v2_known', 'v2_novel', 'all_nmi', 'all_ari'),
    'task-agnostic v3': ('v3_all', 'v3_known', 'v3_novel', None, None),
}
"""Name of a row -> metric key in each column."""


def metric_table(metrics: Mapping[str, Any], best: int) -> str:
    """Lay out the numbers of ``NovelClassMetric``: one row per split and protocol, mean over heads and best head.

    Args:
        metrics: Metric key -> percent.
        best: Index of the best head by training objective.

    Returns:
        str: Two lines of titles, then the rows.
    """

    def cells(split: str, keys: Sequence[str | None], suffix: str) -> list[str]:
        values = [metrics.get(f'{split}/{key}{suffix}') for key in keys]
        return ['-' if value is None else f'{value:.2f}' for value in values]

    rows = [
        [split, name, *cells(split, keys, ''), '|', *cells(split, keys, '_best')]
        for split in dict.fromkeys(key.split('/')[0] for key in metrics)
        for name, keys in _ROWS.items()
        if any(f'{split}/{key}' in metrics for key in keys)
    ]
    numbers = table(['split', 'protocol', *_COLUMNS, '|', *_COLUMNS], rows, right=range(2, 13))
    bar, end = numbers.index('|'), numbers.index('\n')
    titles = f'{"mean over heads":>{bar - 2}}  |{f"best head ({best})":>{end - bar - 1}}'
    return f'{titles}\n{numbers}'


# --------------------------------------------------------------------------------------------------
# The metric.

_PROTOCOLS = ('v1', 'v2', 'v3')

_PER_HEAD = ('novel_acc', 'v2_all')
"""Numbers that are reported for each head, too."""


@METRICS.register_module()
class NovelClassMetric(BaseMetric):
    """How well novel classes were discovered, in percent, for every evaluation split that occurs in the data.

    Samples of all processes are gathered first, so there is one matching of clusters to classes for the whole split
    and the numbers do not depend on how many processes evaluate. With a novel head the keys are:

    ``<split>/novel_acc``, ``novel_nmi``, ``novel_ari``
        Task-aware: the novel head alone, on the samples of novel classes. On unlabelled training images this is the
        main number of UNO and Cr-KD.
    ``<split>/v2_all``, ``v2_known``, ``v2_novel``, the same for ``v1`` and ``v3``; ``all_nmi``, ``all_ari``
        Task-agnostic: known and novel logits compete, on all samples of a split that holds known classes.
        :func:`mmkd_ext.functional.cluster_accuracy` defines the protocols; papers print v2.

    Each is the mean over heads under the plain key, and the best head's number under ``<key>_best``; the best head is
    the one with the lowest training objective, so labels have no part in the choice. ``<split>/novel_acc_heads`` and
    ``<split>/v2_all_heads`` list all heads. Without a novel head (supervised stage) the one key is
    ``<split>/known_acc``, plain accuracy on known classes. A number that no sample contributes to is left out.

    Args:
        num_known: Number of known classes K; labels 0..K-1 are known.
        collect_device: Where results are gathered, ``'cpu'`` (files) or ``'gpu'`` (the process group).
        prefix: Prepended to every key when given.
        collect_dir: Folder for gathering with ``'cpu'``.

    Raises:
        ValueError: If ``num_known`` is not positive, evaluation data hides a label, widths disagree, or there are no
            samples.
        KeyError: If samples lack a field.
    """

    default_prefix = ''  # not None: keys start with the split, and mmengine warns about None

    def __init__(
        self,
        num_known: int,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if num_known < 1:
            raise ValueError(f'NovelClassMetric: expected num_known >= 1 but got {num_known}; count the known classes')
        self.num_known = num_known
        self._head_objective: Any = ()

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep a few integers of each sample.

        Args:
            data_batch: Not used.
            data_samples: Predicted samples as dicts (:func:`read_prediction`).
        """
        self.results += [read_prediction(s, num_known=self.num_known, caller='NovelClassMetric') for s in data_samples]
        self._head_objective = data_samples[-1].get('head_objective', ())

    def compute_metrics(self, results: list[Prediction]) -> dict[str, float | list[float]]:
        """Score the gathered samples of all processes.

        Args:
            results: One entry per sample of the data set.

        Returns:
            dict: Numbers in percent; ARI may be negative.
        """
        if not results:
            raise ValueError('NovelClassMetric: expected samples but got none; check the evaluation data set')
        by_split: dict[str, list[Prediction]] = defaultdict(list)
        for prediction in results:
            by_split[prediction.split].append(prediction)
        if not results[0].task_aware:
            accuracies = ((f'{split}/known_acc', self._known_accuracy(rows)) for split, rows in by_split.items())
            return {**_without_nan(accuracies)}

        best = best_head([float(objective) for objective in self._head_objective])
        heads_of = {split: self._score_heads(rows) for split, rows in by_split.items()}
        metrics: dict[str, float | list[float]] = {}
        for split, heads in heads_of.items():
            metrics |= {f'{split}/{key}': value for key, value in _summarize(heads, best).items()}
        print_log(f'Discovery in percent\n{metric_table(metrics, best)}', logger='current')
        return metrics

    def _known_accuracy(self, rows: Sequence[Prediction]) -> float:
        correct = [row.task_agnostic[0] == row.label for row in rows if row.label < self.num_known]
        return 100 * float(np.mean(correct)) if correct else float('nan')

    def _score_heads(self, rows: Sequence[Prediction]) -> list[dict[str, float]]:
        """Score each head on the samples of one split, in [0, 1]."""
        labels = np.array([row.label for row in rows])
        aware_NH = np.array([row.task_aware for row in rows])
        agnostic_NH = np.array([row.task_agnostic for row in rows])
        is_novel = labels >= self.num_known
        heads = []
        for aware, agnostic in zip(aware_NH.T, agnostic_NH.T, strict=True):
            scores: dict[str, float] = {}
            if is_novel.any():
                scores |= _task_aware(labels[is_novel] - self.num_known, aware[is_novel])
            if not is_novel.all():
                scores |= _task_agnostic(labels, agnostic, self.num_known)
            heads.append(scores)
        return heads


def _task_aware(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    counted = Contingency(labels, clusters)
    return {
        'novel_acc': counted.accuracy()['all'],
        'novel_nmi': counted.normalized_mutual_info(),
        'novel_ari': counted.adjusted_rand_index(),
    }


def _task_agnostic(labels: np.ndarray, classes: np.ndarray, num_known: int) -> dict[str, float]:
    counted = Contingency(labels, classes)
    scores = {
        f'{protocol}_{part}': accuracy
        for protocol in _PROTOCOLS
        for part, accuracy in counted.accuracy(num_known=num_known, protocol=protocol).items()
    }
    nmi, ari = counted.normalized_mutual_info(), counted.adjusted_rand_index()
    return {**_without_nan(scores.items()), 'all_nmi': nmi, 'all_ari': ari}


def _without_nan(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {key: score for key, score in scores if not np.isnan(score)}


def _summarize(heads: Sequence[Mapping[str, float]], best: int) -> dict[str, float | list[float]]:
    """Mean over heads, best head, and for the main numbers all heads, in percent."""
    summary: dict[str, float | list[float]] = {}
    for key in heads[0]:
        percent = [100 * head[key] for head in heads]
        summary[key] = float(np.mean(percent))
        summary[f'{key}_best'] = percent[best]
        if key in _PER_HEAD:
            summary[f'{key}_heads'] = percent
    return summary
