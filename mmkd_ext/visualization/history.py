"""The points of training curves, in plain containers that a checkpoint and a JSON file can hold."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd_ext.io import write_text

_Curves = dict[str, list[list[float]]]

_METRICS = ('novel_acc', 'v2_all', 'v2_known', 'v2_novel', 'known_acc')
"""Last parts of the metric keys that are followed over training."""


class CurveHistory:
    """Mean losses and main metrics over the progress of training.

    Args:
        state: What :meth:`state` returned; empty history when ``None``.

    Attributes:
        progress_name: What progress counts: 'epoch' or 'iteration'.
        losses: Name -> [[progress, value], ...], progress ascending.
        metrics: Same.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.progress_name: str = state.get('progress_name', 'epoch')
        self.losses: _Curves = {name: list(points) for name, points in state.get('losses', {}).items()}
        self.metrics: _Curves = {name: list(points) for name, points in state.get('metrics', {}).items()}

    @classmethod
    def load(cls, path: Path) -> 'CurveHistory':
        """Read the history that :meth:`save` wrote; empty when there is no such file."""
        return cls(json.loads(path.read_text()) if path.is_file() else None)

    def save(self, path: Path) -> None:
        """Write the history as JSON, whole or not at all: a run may be killed at any moment."""
        write_text(path, json.dumps(self.state(), indent=1))

    def state(self) -> dict[str, Any]:
        """Return the history as dicts, lists, strings and numbers."""
        return {'progress_name': self.progress_name, 'losses': self.losses, 'metrics': self.metrics}

    @property
    def losses_end(self) -> float:
        """Progress at the last point of the losses, 0 before the first."""
        return max((points[-1][0] for points in self.losses.values() if points), default=0.0)

    def add_losses(self, progress: float, means: Mapping[str, float]) -> None:
        """Append losses; those of an epoch that is trained again replace its first points.

        Args:
            progress: Epochs or iterations done.
            means: Losses by name, means since the last point.
        """
        for name, value in means.items():
            _add(self.losses, name, progress, float(value))

    def add_metrics(self, progress: float, metrics: Mapping[str, Any]) -> None:
        """Append the main metrics; a repeated validation replaces its first point.

        Args:
            progress: Epochs or iterations done.
            metrics: Results of ``NovelClassMetric``.
        """
        for name, value in metrics.items():
            if name.split('/')[-1] in _METRICS:
                _add(self.metrics, name, progress, float(value))

    def fill_up(self, other: 'CurveHistory', until: float) -> None:
        """Add the points of another history that are missing here.

        Args:
            other: History of the same training.
            until: Progress after which points of ``other`` do not count: training resumes there.
        """
        for mine, theirs in ((self.losses, other.losses), (self.metrics, other.metrics)):
            for name, points in theirs.items():
                earlier = [point for point in points if point[0] <= until]
                by_progress = {point[0]: point for point in [*earlier, *mine.get(name, [])]}
                mine[name] = [list(by_progress[progress]) for progress in sorted(by_progress)]


def _add(curves: _Curves, name: str, progress: float, value: float) -> None:
    """Append a point, in place of one that a run wrote before it was killed and resumed from an earlier checkpoint."""
    points = [point for point in curves.get(name, []) if point[0] < progress]
    curves[name] = [*points, [progress, value]]
