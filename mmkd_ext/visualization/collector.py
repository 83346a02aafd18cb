"""Collects what a report needs over one evaluation pass of all processes: a few numbers per sample, some embeddings."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from mmengine.dist import all_gather_object, collect_results, get_dist_info

from mmkd_ext.visualization.discovery import Assignment, Discovery

__all__ = ['DiscoveryCollector']

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
