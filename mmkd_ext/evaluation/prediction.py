"""What evaluation reads from one predicted sample, reduced to a few integers.

Shape suffixes: H heads, K known classes, N clusters of a novel head, C = K + N.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ['Prediction', 'best_head', 'read_prediction']


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


def read_prediction(sample: Mapping[str, Any], *, num_known: int, who: str) -> Prediction:
    """Reduce a predicted data sample to integers.

    Args:
        sample: ``DataSample.to_dict()`` after prediction: ``gt_label`` (1,), ``split_name``, ``known_logits`` (K,) and,
            with a novel head, ``novel_logits`` (H, N).
        num_known: Number of known classes K.
        who: Name of the caller in messages.

    Returns:
        Prediction: Truth and answers.

    Raises:
        KeyError: A field is missing.
        ValueError: The label is hidden, or the known head has another width than K.
    """
    for key, remedy in (
        ('split_name', "wrap the data in NovelClassSplit and pack it with PackInputs(meta_keys=('split_name', ...))"),
        ('gt_label', 'evaluate on data that has labels'),
        ('known_logits', 'evaluate an NCDClassifier'),
    ):
        if key not in sample:
            raise KeyError(f'{who}: expected predicted samples with {key!r} but got {sorted(sample)}; {remedy}')
    label = int(sample['gt_label'])
    if label < 0:
        raise ValueError(f'{who}: expected labels >= 0 in evaluation data but got {label}; set hide_labels=False')
    known_K = torch.as_tensor(sample['known_logits'])
    if known_K.shape != (num_known,):
        raise ValueError(
            f'{who}: expected known_logits of shape ({num_known},) but got {tuple(known_K.shape)}; '
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
    objective = np.asarray(head_objective, dtype=np.float64)
    return 0 if np.isnan(objective).all() else int(np.nanargmin(objective))
