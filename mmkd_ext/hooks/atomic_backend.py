"""Files that are there whole or not at all."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

__all__ = ['ATOMIC', 'PARTIAL', 'AtomicLocalBackend']

ATOMIC = 'mmkd_ext.AtomicLocalBackend'
"""Name for ``backend_args=dict(backend=...)`` of mmengine's functions."""

PARTIAL = '.partial'
"""Ending of files that are being written, or were when the process was killed."""


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
        partial = f'{filepath}{PARTIAL}'
        super().put(obj, partial)
        _flush(partial)
        os.replace(partial, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text.

        Args:
            obj: Content of the file.
            filepath: Its folder is made where it is missing.
            encoding: Of the file.
        """
        self.put(obj.encode(encoding), filepath)


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
