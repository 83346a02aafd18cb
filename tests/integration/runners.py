"""Runs in tests stand on mmengine's own test case, used as a tool: tests of pytest have parameters and fixtures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from mmengine.testing import RunnerTestCase


class RunnerCase(RunnerTestCase):
    """Registers mmengine's toys, gives each runner a name of its own, and leaves no singleton behind.

    The toys are ``ToyModel``, ``ToyDataset`` (12 samples) and ``ToyMetric``; a batch has 3 samples, so an epoch has
    4 iterations.
    """

    def build(self, work_dir: str | Path | None = None, **settings: Any) -> Runner:
        """Build a runner from what differs from a training of the toys.

        Settings are keyword arguments of the Runner, and may hold objects and classes that no file of a config could
        hold, for example hooks that take notes. Where there is a whole config, ``build_runner`` takes it.

        Args:
            work_dir: In place of the temporary one, for example to resume in it.
            **settings: Take the place of those of the toys, key by key; only training is set up without any.
        """
        toy = self.epoch_based_cfg.to_dict()
        names = ('model', 'train_dataloader', 'optim_wrapper', 'train_cfg', 'default_hooks')
        settings = {**{name: toy[name] for name in names}, 'experiment_name': self.experiment_name, **settings}
        return Runner(work_dir=str(work_dir or self.temp_dir.name), **settings)


@contextmanager
def runner_case() -> Iterator[RunnerCase]:
    """Set the case up and take it down, as unittest does around a test."""
    case = RunnerCase()
    case.setUp()
    try:
        yield case
    finally:
        case.tearDown()
