"""Measures how much of a training step the teachers take."""

import torch

from mmkd_ext.distill.distillation import Distillation
from mmkd_ext.distill.stopwatch import Stopwatch

__all__ = ['TeacherCost']


class TeacherCost:
    """Times some steps and the teachers' forwards within them, once.

    Args:
        distillation: What runs the teachers.
        device: Where they run.
        warm_up: First steps that are left out: memory is allocated and libraries tune themselves.
        num_steps: Steps that are timed.
    """

    def __init__(self, distillation: Distillation, device: torch.device, warm_up: int = 3, num_steps: int = 10) -> None:
        self.warm_up = warm_up
        self.num_steps = num_steps
        self._distillation = distillation
        self._step = Stopwatch(device)
        self._teachers = {name: Stopwatch(device) for name in distillation.teachers}
        self._num_begun = 0
        self._is_told = False

    def before_step(self) -> None:
        """Say that a step begins, its data loaded."""
        self._num_begun += 1
        if self._is_timed:
            self._distillation.stopwatches = self._teachers
            self._step.start()

    def after_step(self) -> str | None:
        """Say that a step has ended.

        Returns:
            One sentence on the cost, once, when all is timed and the GPU has come so far.
        """
        if self._is_timed:
            self._distillation.stopwatches = {}
            self._step.stop()
        if self._is_told or self._num_begun < self.warm_up + self.num_steps:
            return None
        total = self._step.seconds()
        parts = {name: watch.seconds() for name, watch in self._teachers.items()}
        if total is None or None in parts.values():
            return None
        self._is_told = True
        mean_ms = 1000 / self.num_steps
        shares = [f'{name} {part / total:.0%} ({part * mean_ms:.1f} ms)' for name, part in parts.items()]
        return (
            f"share of the teachers' forwards in a step of {total * mean_ms:.1f} ms without data loading, mean of "
            f'{self.num_steps} steps: {", ".join(shares)}'
        )

    @property
    def _is_timed(self) -> bool:
        return self.warm_up < self._num_begun <= self.warm_up + self.num_steps
