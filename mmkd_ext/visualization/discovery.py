"""What a trained model discovered: the table of all samples, and one split of it ready to be drawn.

Shape suffixes: T true classes, K known classes, N novel clusters, C = K + N outputs.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from mmengine.dist import all_gather_object, collect_results, get_dist_info

from mmkd_ext.scores.cluster_accuracy import UNMATCHED, contingency_table, match_clusters


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


# --------------------------------------------------------------------------------------------------
# Collects what a report needs over one evaluation pass of all processes: a few numbers per sample, some embeddings.

_Candidate = tuple[float, int, np.ndarray]
"""Random priority, position in the data set, embedding."""


class DiscoveryCollector:
    """Keeps every assignment, and at most ``max_points`` embeddings per split.

    Each position of the data set has a fixed random priority, and the lowest ones of a split are kept. So which
    samples are drawn does not depend on batch size or number of processes, and the split need not be known beforehand.

    Args:
        num_samples: Size of the evaluation data set.
        max_points: Most embeddings per split.
        seed: Seed of the priorities.
    """

    def __init__(self, num_samples: int, max_points: int, seed: int = 0) -> None:
        self.num_samples = num_samples
        self.max_points = max_points
        self._priorities = np.random.default_rng(seed).random(num_samples)
        self._assignments: list[Assignment] = []
        self._candidates: dict[str, list[_Candidate]] = defaultdict(list)
        self._rank, self._num_processes = get_dist_info()

    def add(self, assignments: Sequence[Assignment], embeddings: np.ndarray) -> None:
        """Take in one batch, in the order of the sampler.

        Args:
            assignments: One per sample.
            embeddings: (samples, D).
        """
        for assignment, embedding in zip(assignments, embeddings, strict=True):
            # mmengine's evaluation sampler deals samples out in turn, and pads the end with repeated ones.
            position = len(self._assignments) * self._num_processes + self._rank
            self._assignments.append(assignment)
            if position < self.num_samples:
                candidates = self._candidates[assignment.split]
                candidates.append((self._priorities[position], position, embedding.copy()))
                if len(candidates) >= 2 * self.max_points:
                    candidates[:] = self._draw(candidates)

    def gather(self, class_names: Sequence[str] | None, num_known: int, num_clusters: int) -> Discovery | None:
        """Bring the samples of all processes together; to be called by all of them.

        Args:
            class_names: Names of the true classes, known first; numbers when ``None``.
            num_known: Number of known classes.
            num_clusters: Number of novel clusters.

        Returns:
            Discovery: In the main process; ``None`` elsewhere.
        """
        assignments = collect_results(self._assignments, self.num_samples)
        parts = all_gather_object({split: self._draw(candidates) for split, candidates in self._candidates.items()})
        if assignments is None:
            return None
        class_names = class_names or [str(c) for c in range(max(row.label for row in assignments) + 1)]
        embeddings = {}
        for split in dict.fromkeys(assignment.split for assignment in assignments):
            drawn = self._draw(candidate for part in parts for candidate in part.get(split, ()))
            embeddings[split] = (np.array([c[1] for c in drawn]), np.stack([c[2] for c in drawn]))
        return Discovery(assignments, class_names, num_known, num_clusters, embeddings)

    def _draw(self, candidates: Iterable[_Candidate]) -> list[_Candidate]:
        return sorted(candidates, key=lambda candidate: candidate[0])[: self.max_points]
