"""Checkpoints that a kill at any moment leaves usable."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmkd_ext.engine.checkpoint_files import ATOMIC, save_checkpoint
from mmkd_ext.io import PARTIAL
from mmkd_ext.registry import HOOKS

__all__ = ['AtomicCheckpointHook']


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` with the same arguments, names and files, safe against being killed.

    A checkpoint appears under its name when it is complete, then ``last_checkpoint`` is replaced by one that names it,
    and only then what exceeds ``max_keep_ckpts`` is removed (mmengine removes first, so that a run that keeps one
    checkpoint has none while it writes). Remains of a killed run are removed when it is resumed.

    This holds for local files. Where ``out_dir`` is remote, or a backend is named, that backend writes.

    Args:
        *args: Those of ``CheckpointHook``.
        **kwargs: Those of ``CheckpointHook``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_local = (
            self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir or '')
        )
        if self._is_local:
            self.backend_args = {'backend': ATOMIC}

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and clear it of files that were never completed.

        Args:
            runner: The runner.
        """
        super().before_train(runner)
        # Else a new best in the first validation after resuming would be noted in no checkpoint.
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
        if self._is_local and is_main_process():
            for path in Path(self.out_dir).glob(f'*{PARTIAL}'):
                path.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = self._count_in(runner, step) if self.max_keep_ckpts > 0 else []
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        save_checkpoint(
            runner,
            self.out_dir,
            name,
            meta,
            file_client_args=self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            for old in outdated:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))

    def _count_in(self, runner: Runner, step: int) -> list[int]:
        """Add a checkpoint to those that are kept, and return those that are too many."""
        kept = [*self.keep_ckpt_ids, *([] if step in self.keep_ckpt_ids else [step])]
        # With those to be removed: a run that is killed before it removes them does so when it is resumed.
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        self.keep_ckpt_ids.extend(kept[len(self.keep_ckpt_ids) :])
        return kept[: -self.max_keep_ckpts]

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
