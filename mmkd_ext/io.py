"""What leaves a process: files that are there whole or not at all, their digests, a run's log, tables for a console."""

import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = '.partial'
"""Ending of files that are being written, or were when the process was killed."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Lend a path to write to; at the end of the block that file is flushed to the disk and takes the place of another.

    A process that is killed, or a machine that goes down, leaves the old file or the new one. An error in the block
    leaves the old one. Two processes must not write the same file at the same time.

    Args:
        path: File to write, in an existing folder.

    Yields:
        Path of the unfinished file: ``path`` with :data:`PARTIAL` added. What is written there gets the permissions
        of any new file.
    """
    partial = Path(f'{path}{PARTIAL}')
    try:
        yield partial
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all (:func:`replacing`)."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write text as UTF-8 with the line ends that it has, whole or not at all (:func:`replacing`)."""
    write_bytes(path, content.encode())


def sha256(content: str | bytes | Path | Iterable[bytes]) -> str:
    """Return the SHA-256 of text (as UTF-8), of bytes, of a file, or of bytes that come in parts: 64 hex digits."""
    if isinstance(content, Path):
        content = content.read_bytes()
    if isinstance(content, str):
        content = content.encode()
    digest = hashlib.sha256()
    for part in [content] if isinstance(content, bytes) else content:
        digest.update(part)
    return digest.hexdigest()


def read_scalars(work_dir: Path) -> list[dict[str, Any]]:
    """Read what mmengine's Runner logged in a folder, over all starts of the run, in order.

    Lines of the training have a learning rate, ``lr``, and count iterations where those of validations count epochs.

    Args:
        work_dir: Folder of the run.

    Returns:
        One dict per line; without the last line of a start that was killed while it wrote it.
    """
    entries: list[dict[str, Any]] = []
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = log.read_text(encoding='utf-8').splitlines()
        if lines and not lines[-1].endswith('}'):
            lines.pop()
        entries += map(json.loads, lines)
    return entries


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Container[int] = ()) -> str:
    """Align the columns of a table.

    Args:
        header: Titles of the columns.
        rows: As many texts in each.
        right: Indices of the columns that are aligned at their right end.

    Returns:
        One line per row, indented by two spaces.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def aligned(line: Sequence[str]) -> Iterator[str]:
        for column, (text, width) in enumerate(zip(line, widths, strict=True)):
            yield text.rjust(width) if column in right else text.ljust(width)

    return '\n'.join(f'  {"  ".join(aligned(line))}'.rstrip() for line in lines)
