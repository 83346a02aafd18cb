"""What a trained model discovered: the table of all samples, and one split of it ready to be drawn.

Shape suffixes: T true classes, K known classes, N novel clusters, C = K + N outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmkd_ext.visualization.matching import UNMATCHED, contingency_table, match_clusters

__all__ = ['Assignment', 'Discovery', 'SplitView']


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the best head puts one sample.

    Attributes:
        sample_idx: Index of the sample in its own data set.
        split: Name of its evaluation split.
        label: True class, known first.
        task_aware: Novel cluster in [0, N), chosen among novel clusters.
        task_agnostic: Output in [0, C), chosen among known classes and novel clusters.
        confidence_aware: Probability of ``task_aware`` given that the class is novel, in [0, 1].
        confidence_agnostic: Probability of ``task_agnostic``, in [0, 1].
    """

    sample_idx: int
    split: str
    label: int
    task_aware: int
    task_agnostic: int
    confidence_aware: float
    confidence_agnostic: float


@dataclass(frozen=True)
class SplitView:
    """The samples of one split with the outputs they are judged by.

    A split of novel classes only is judged task-aware (novel head alone), any other task-agnostic.

    Attributes:
        name: Name of the split.
        is_task_aware: Which of the two.
        positions: Positions of the samples in the evaluation data set, (samples,).
        labels: True classes in [0, T), (samples,).
        outputs: Outputs in [0, C), novel cluster ``j`` is ``K + j``, (samples,).
        confidence: In [0, 1], (samples,).
        counts_TC: Samples per true class and output, (T, C).
    """

    name: str
    is_task_aware: bool
    positions: np.ndarray
    labels: np.ndarray
    outputs: np.ndarray
    confidence: np.ndarray
    counts_TC: np.ndarray

    @cached_property
    def matched_C(self) -> np.ndarray:
        """Class matched with each output, -1 for none, (C,)."""
        return match_clusters(self.counts_TC)

    @cached_property
    def purity_C(self) -> np.ndarray:
        """Share of each output's samples that belong to its matched class, 0 without samples or class, (C,)."""
        hits_C = self.counts_TC[self.matched_C, np.arange(len(self.matched_C))]
        hits_C = np.where(self.matched_C == UNMATCHED, 0, hits_C)
        return hits_C / np.maximum(self.counts_TC.sum(axis=0), 1)


@dataclass(frozen=True)
class Discovery:
    """All evaluation samples, and the embeddings of some.

    Attributes:
        assignments: One per sample, in the order of the evaluation data set.
        class_names: Names of the T true classes, known first.
        num_known: Number of known classes K.
        num_clusters: Number of novel clusters N.
        embeddings: Split -> (positions (points,), embeddings (points, D)) of samples drawn at random.
    """

    assignments: Sequence[Assignment]
    class_names: Sequence[str]
    num_known: int
    num_clusters: int
    embeddings: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of the data."""
        return list(dict.fromkeys(assignment.split for assignment in self.assignments))

    @property
    def output_names(self) -> list[str]:
        """Names of the C outputs."""
        return [*self.class_names[: self.num_known], *(f'cluster {j}' for j in range(self.num_clusters))]

    def view(self, split: str) -> SplitView:
        """Select the samples of one split.

        Args:
            split: One of :attr:`splits`.

        Returns:
            SplitView: Its samples.
        """
        positions = np.array([i for i, assignment in enumerate(self.assignments) if assignment.split == split])
        rows = [self.assignments[position] for position in positions.tolist()]
        labels = np.array([row.label for row in rows])
        is_task_aware = bool((labels >= self.num_known).all())
        outputs = [self.num_known + row.task_aware if is_task_aware else row.task_agnostic for row in rows]
        confidence = [row.confidence_aware if is_task_aware else row.confidence_agnostic for row in rows]
        counts_TC = contingency_table(
            labels, np.array(outputs), len(self.class_names), self.num_known + self.num_clusters
        )
        return SplitView(split, is_task_aware, positions, labels, np.array(outputs), np.array(confidence), counts_TC)
