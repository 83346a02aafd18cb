"""Compile a C file of this package for the processor at hand, once per user.

Not by ``torch.utils.cpp_extension.load``, which needs ninja and a C++ compiler, reads headers of torch for longer than
the kernel takes, and does not ask what processor a library was built for (``docs/libraries.md``).
"""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmkd_ext.io import sha256

# Sums may be cut into lanes only where the source says so, and no rule of NaN or infinity is given up.
_COMMON = ['-std=c99', '-O3', '-fPIC', '-shared', '-fopenmp-simd', '-ffp-contract=fast', '-fno-math-errno']
_COMMON += ['-fno-trapping-math']  # a lane that is not taken may divide by zero
# What makes best use of the processor comes first; not every compiler takes it.
_TARGETS: tuple[list[str], ...] = (
    ['-march=native', '-mprefer-vector-width=512', '-fschedule-insns'],
    ['-march=native'],
    [],
)
_SECONDS = 120


def build_library(source: Path, macros: Sequence[str] = ()) -> Path:
    """Compile a shared library, unless this user has it from an earlier process.

    Libraries lie in ``$XDG_CACHE_HOME/mmkd_ext`` (``~/.cache/mmkd_ext``), in a folder that only the user can write, by
    the hash of source, flags, and all that the compiler says about itself and the processor. Processes that build at
    the same time do not disturb each other. The compiler is ``$CC``, else ``cc``, ``gcc`` or ``clang``.

    Args:
        source: C file without dependencies but libm.
        macros: Definitions for it, such as ``'REAL=float'``.

    Returns:
        The library.

    Raises:
        OSError: If there is no compiler, it fails, or there is no place to write to.
    """
    code = source.read_bytes()
    compiler = _compiler()
    folder = _folder()
    reason = ''
    for target in _TARGETS:
        flags = [*_COMMON, *target, *(f'-D{macro}' for macro in macros)]
        try:
            about = _run([compiler, *target, '-dM', '-E', '-x', 'c', os.devnull])
            key = sha256(b'\0'.join([code, about, compiler.encode(), *(flag.encode() for flag in flags)]))
            library = folder / f'{source.stem}_{key[:32]}.so'
            if not library.exists():
                _compile([compiler, *flags, str(source)], library)
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(getattr(error, 'stderr', b'') or error)
        else:
            return library
    raise OSError(f'build_library: expected {compiler} to compile {source.name} but it failed: {reason[-400:]}')


def _compiler() -> str:
    for name in (os.environ.get('CC'), 'cc', 'gcc', 'clang'):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise OSError('build_library: expected a C compiler but found none of $CC, cc, gcc, clang; install one')


def _folder() -> Path:
    """A folder for libraries that nobody else can write to, as what lies there is run."""
    cache = os.environ.get('XDG_CACHE_HOME')
    folder = (Path(cache) if cache else Path.home() / '.cache') / 'mmkd_ext'
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f'build_library: expected {folder} to be writable by its owner alone; chmod 700 it')
    return folder


def _compile(command: list[str], library: Path) -> None:
    # Named last, in one step: another process sees all of the library or nothing.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unfinished = Path(folder) / library.name
        _run([*command, '-o', str(unfinished), '-lm'])
        unfinished.replace(library)


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS).stdout
