"""Statistics behind the choice of the best discovery head."""

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_ext.engine.runner import student_of
from mmkd_ext.heads import NovelHead
from mmkd_ext.hooks.resume_hook import resumed_batches
from mmkd_ext.registry import HOOKS

__all__ = ['BestHeadHook']


@HOOKS.register_module()
class BestHeadHook(Hook):
    """Chooses the best head by the training objective of the last epoch alone, over all processes.

    Each :class:`mmkd_ext.heads.NovelHead` sums the objective of its heads. This hook empties the sums before each
    epoch, as UNO v2 does (the code of Cr-KD accumulates over all epochs), and adds them up over processes after it.
    Then validation chooses the same head in every process, and a checkpoint written after the epoch holds the choice.
    Nothing happens for a model without such heads. Meant for epoch-based training: an iteration-based loop counts as
    one epoch. An epoch that :class:`mmkd_ext.ExactResumeHook` resumes in the middle keeps its sums.
    """

    # Before CheckpointHook (VERY_LOW), which writes the statistics.
    priority = 'NORMAL'

    def before_train_epoch(self, runner: Runner) -> None:
        """Empty the statistics, unless they are those of the first part of this epoch.

        Args:
            runner: The runner.
        """
        if resumed_batches(runner):
            return
        for head in _novel_heads(runner):
            head.reset_objective()

    def after_train_epoch(self, runner: Runner) -> None:
        """Add the statistics of all processes.

        Args:
            runner: The runner.
        """
        for head in _novel_heads(runner):
            all_reduce(head.objective_sum)
            all_reduce(head.objective_count)


def _novel_heads(runner: Runner) -> list[NovelHead]:
    return [module for module in student_of(runner).modules() if isinstance(module, NovelHead)]
