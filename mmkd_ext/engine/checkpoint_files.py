"""Files that are there whole or not at all."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.runner import Runner

from mmkd_ext.io import PARTIAL, replacing

__all__ = ['ATOMIC', 'PARTIAL', 'AtomicLocalBackend', 'save_checkpoint']

ATOMIC = 'mmkd_ext.AtomicLocalBackend'
"""Name for ``backend_args=dict(backend=...)`` of mmengine's functions."""


@register_backend(ATOMIC, force=True)
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written under another name, flushed to the disk, and then renamed.

    A process that is killed, or a machine that goes down, leaves the old file or the new one.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes.

        Args:
            obj: Content of the file.
            filepath: Its folder is made where it is missing.
        """
        with replacing(filepath) as partial:
            super().put(obj, partial)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text.

        Args:
            obj: Content of the file.
            filepath: Its folder is made where it is missing.
            encoding: Of the file.
        """
        self.put(obj.encode(encoding), filepath)


def save_checkpoint(runner: Runner, out_dir: str, filename: str, meta: dict[str, Any], **options: Any) -> str:
    """Save a checkpoint, then make it the one that a run resumes from. All processes call this.

    Before the main process writes, hooks of every process that have a method ``before_save_in_all_processes(runner)``
    are called: there they can collect what only they know.

    Args:
        runner: The runner.
        out_dir: Folder.
        filename: Name of the file in it.
        meta: ``epoch`` and ``iter``, the numbers of finished ones.
        **options: More arguments of ``Runner.save_checkpoint``.

    Returns:
        Path of the checkpoint.
    """
    runner.call_hook('before_save_in_all_processes')
    runner.save_checkpoint(out_dir, filename, meta=meta, **options)
    path = get_file_backend(out_dir, backend_args=options.get('backend_args')).join_path(out_dir, filename)
    if is_main_process():
        pointer = Path(runner.work_dir, 'last_checkpoint')
        get_file_backend(pointer, backend_args={'backend': ATOMIC}).put_text(str(path), pointer)
    return str(path)
