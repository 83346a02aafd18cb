"""Batch norm over all processes where torch's own does not work."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmkd_ext.engine.cpu import SyncBatchNorm, convert_sync_batch_norm
from mmkd_ext.registry import HOOKS

__all__ = ['SyncBatchNormHook']


@HOOKS.register_module()
class SyncBatchNormHook(Hook):
    """Puts :class:`mmkd_ext.models.SyncBatchNorm` in the place of every batch norm of the model before the run.

    ``mmkd train`` adds this hook where the config has ``sync_bn``, which torch supports on GPUs only, and processes
    work on CPUs. Checkpoints have the same keys.
    """

    # Before any hook that copies, taps or compiles modules.
    priority = 'HIGHEST'

    def before_run(self, runner: Runner) -> None:
        """Convert the model.

        Args:
            runner: The runner.
        """
        convert_sync_batch_norm(runner.model)
        count = sum(isinstance(module, SyncBatchNorm) for module in runner.model.modules())
        print_log(f'{count} batch norms take their statistics over all processes', logger='current')
