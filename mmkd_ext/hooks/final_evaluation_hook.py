"""Which evaluation a report is about."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

__all__ = ['FinalEvaluationHook']


class FinalEvaluationHook(Hook):
    """Base of hooks that report on every test, on a validation on its own, and on the last one of training."""

    # After LoggerHook (BELOW_NORMAL), so that the report is the last thing on the console; before CheckpointHook
    # (VERY_LOW), which writes what a report keeps.
    priority = 'LOW'

    def __init__(self) -> None:
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Note that only the last validation is reported on.

        Args:
            runner: The runner.
        """
        self._is_training = True

    def after_train(self, runner: Runner) -> None:
        """Note that a later validation is not part of training.

        Args:
            runner: The runner.
        """
        self._is_training = False

    def _is_final(self, runner: Runner, mode: str) -> bool:
        """Tell whether an epoch that begins is a test, a validation on its own, or the last one of training."""
        return mode == 'test' or (mode == 'val' and (not self._is_training or runner.iter >= runner.max_iters))
