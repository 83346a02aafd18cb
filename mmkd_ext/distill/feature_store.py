"""Rows of features on disk, shared by processes, of which a half-written one is never read."""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch

__all__ = ['FeatureStore', 'Layout']

_FORMAT = 1
_IS_WRITTEN = np.uint64(1 << 32)  # above the 32 bits of the checksum, so that 0 means an empty row


@dataclass(frozen=True)
class Layout:
    """What one row holds: the features of one sample, tap after tap.

    Attributes:
        taps: Name of each feature.
        shapes: Shape of each feature of one sample.
        dtypes: Name of each torch dtype, for example ``'bfloat16'``.
        input_shape: Shape of one sample as the student gets it.
        precision: Under which the features were computed, for example ``'cpu'`` or ``'cuda, autocast bfloat16'``.
    """

    taps: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    input_shape: tuple[int, ...]
    precision: str

    @classmethod
    def of(cls, features: Mapping[str, torch.Tensor], input_shape: tuple[int, ...], precision: str) -> 'Layout':
        """Return the layout of a batch of features, each (B, ...)."""
        taps = tuple(sorted(features))
        shapes = tuple(tuple(features[tap].shape[1:]) for tap in taps)
        dtypes = tuple(str(features[tap].dtype).removeprefix('torch.') for tap in taps)
        return cls(taps, shapes, dtypes, input_shape, precision)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each feature."""
        return [
            prod(shape) * getattr(torch, dtype).itemsize for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        ]

    def pack(self, features: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Return the rows (B, bytes) uint8 of a batch of features."""
        rows = [features[tap].detach().cpu().contiguous() for tap in self.taps]
        return torch.cat([row.reshape(len(row), -1).view(torch.uint8) for row in rows], dim=1).numpy()

    def unpack(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the features of rows (B, bytes) uint8, bit for bit what :meth:`pack` got, on the CPU."""
        parts = torch.from_numpy(rows).split(self.sizes, dim=1)
        return {
            tap: part.contiguous().view(getattr(torch, dtype)).reshape(-1, *shape)
            for tap, part, dtype, shape in zip(self.taps, parts, self.dtypes, self.shapes, strict=True)
        }


class FeatureStore:
    """A folder with one memory-mapped row of features per sample, filled in any order by any number of processes.

    - ``rows.npy``: (samples, bytes per sample) uint8; a memory map, so nothing is unpickled.
    - ``checksums.npy``: (samples,) uint64, ``2**32 + CRC-32`` of the row, 0 for an empty one.
    - ``meta.json``: ``identity`` and layout, put in place last: without it the folder counts as empty.

    A row is written before its checksum and is read only if the checksum fits, so neither a killed process nor a
    simultaneous writer can make a reader see half a row: such a row is missing, and is computed again. Writers take
    turns (``flock``) and keep what is there: every process sees the same bytes for a sample, for ever.

    Args:
        folder: Where the files are; made if need be.
        num_samples: Number of rows.
        identity: What the features depend on, by the words that a message uses for it.

    Raises:
        ValueError: The folder was filled from something else, or is damaged.
    """

    def __init__(self, folder: str | Path, num_samples: int, identity: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self.num_samples = num_samples
        self.identity = dict(identity)
        self.layout: Layout | None = None
        self._rows = self._checksums = np.empty(0)
        if (self.folder / 'meta.json').is_file():
            self._open()

    def set_layout(self, layout: Layout) -> None:
        """Make the files for rows of this layout, or check that those there have it.

        Raises:
            ValueError: The files have rows of another layout.
            OSError: The disk lacks the space.
        """
        if self.layout is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                if not (self.folder / 'meta.json').is_file():
                    self._create(layout)
            self._open()
        for name, stored in asdict(self.layout).items():
            self._compare(f'{name} of the features', asdict(layout)[name], stored)

    def read(self, samples: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return rows (B, bytes) uint8 and whether each of them is there, (B,) bool."""
        if self.layout is None:
            return np.empty((len(samples), 0), np.uint8), np.zeros(len(samples), bool)
        checksums = self._checksums[samples]
        rows = self._rows[samples]
        return rows, (checksums != 0) & (checksums == _checksums(rows))

    def write(self, samples: Sequence[int], rows: np.ndarray) -> np.ndarray:
        """Write those of the rows (B, bytes) uint8 that are not there yet; return what is there now."""
        with self._lock():
            for sample, row in zip(samples, rows, strict=True):
                if not self.read([sample])[1]:
                    self._checksums[sample] = 0
                    self._rows[sample] = row
                    self._checksums[sample] = _checksums(row[None])[0]
            return self.read(samples)[0]

    def _create(self, layout: Layout) -> None:
        needed = self.num_samples * (sum(layout.sizes) + 8)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            # The files are sparse at first: a full disk would kill the process later, without a message.
            raise OSError(
                f'teacher cache: expected {needed / 1e9:.1f} GB of free space for {self.num_samples} samples in '
                f'{self.folder} but found {free / 1e9:.1f} GB; tap a smaller feature, or train without cache'
            )
        for name, dtype, shape in (
            ('rows', np.uint8, (self.num_samples, sum(layout.sizes))),
            ('checksums', np.uint64, (self.num_samples,)),
        ):
            np.lib.format.open_memmap(self.folder / f'{name}.npy', mode='w+', dtype=dtype, shape=shape)
        meta = {'format': _FORMAT, 'samples': self.num_samples, 'identity': self.identity, 'layout': asdict(layout)}
        partial = self.folder / 'meta.partial'
        partial.write_text(json.dumps(meta, indent=1))
        os.replace(partial, self.folder / 'meta.json')

    def _open(self) -> None:
        with self._name_damage():
            meta = json.loads((self.folder / 'meta.json').read_text())
            stored = {'format': meta['format'], 'number of samples': meta['samples'], **meta['identity']}
            layout = Layout(**{name: _frozen(value) for name, value in meta['layout'].items()})
            sizes = layout.sizes
        expected = {'format': _FORMAT, 'number of samples': self.num_samples, **self.identity}
        for name in {**expected, **stored}:
            self._compare(name, expected.get(name), stored.get(name))
        with self._name_damage():
            rows = np.lib.format.open_memmap(self.folder / 'rows.npy', mode='r+')
            checksums = np.lib.format.open_memmap(self.folder / 'checksums.npy', mode='r+')
            if (rows.shape, checksums.shape) != ((self.num_samples, sum(sizes)), (self.num_samples,)):
                raise ValueError(f'arrays of shapes {rows.shape} and {checksums.shape}')
        self.layout, self._rows, self._checksums = layout, rows, checksums

    @contextmanager
    def _name_damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'teacher cache: expected the files of a cache but those in {self.folder} are damaged ({error}); '
                'delete the folder'
            ) from error

    def _compare(self, name: str, expected: object, stored: object) -> None:
        if expected != stored:
            raise ValueError(
                f'teacher cache: expected features of this run but those in {self.folder} are of another {name} '
                f'({stored}, now {expected}); delete the folder to fill it anew, or give the cache another one'
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        import fcntl  # not on Windows, where the rest of the package works

        with (self.folder / 'lock').open('w') as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by the end of the process
            yield


def _checksums(rows: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(row) for row in rows], np.uint64) | _IS_WRITTEN


def _frozen(value: object) -> object:
    """Turn the lists of JSON back into tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
