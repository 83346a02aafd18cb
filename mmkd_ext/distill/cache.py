"""Features of a teacher on disk: digests that tell what they belong to, the files, and a teacher that reads them."""

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkd_ext.distill.features import FrozenTeacher
from mmkd_ext.io import sha256, write_text


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a value, the same in every process and on every machine.

    Args:
        value: Numbers, strings, bytes, None, classes, arrays, tensors, and lists, tuples and dicts of them. Lists and
            tuples count as the same, and so do numbers of Python and NumPy.

    Raises:
        TypeError: For anything else, whose text could change from run to run.
    """
    return sha256(_parts(value))


def model_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a model: its modules as they describe themselves, parameters and buffers, bit for bit."""
    return fingerprint([str(model), dict(model.state_dict())])


def _parts(value: Any) -> Iterator[bytes]:
    """Yield bytes that together belong to one value only: each part says how long it is."""
    if isinstance(value, Mapping):
        yield f'dict {len(value)} '.encode()
        for name in sorted(value, key=str):
            yield from _parts(name)
            yield from _parts(value[name])
    elif isinstance(value, (list, tuple)):
        yield f'list {len(value)} '.encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, torch.Tensor):
        yield f'tensor {value.dtype} {tuple(value.shape)} '.encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f'array {value.dtype.str} {value.shape} '.encode()
        yield value.tobytes()
    else:
        text = _text(value)
        yield f'{len(text)} '.encode()
        yield text


def _text(value: Any) -> bytes:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, type):
        # Caches on disk outlive a move of the class to another module: it may keep the name that they know.
        name = vars(value).get('fingerprint_name', f'{value.__module__}.{value.__qualname__}')
        return f'class {name}'.encode()
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return f'{type(value).__name__} {value!r}'.encode()
    raise TypeError(f'fingerprint: expected numbers, text, arrays and tensors but got {type(value).__name__}')


# --------------------------------------------------------------------------------------------------
# Rows of features on disk, shared by processes, of which a half-written one is never read.

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
        for name, stored in vars(self.layout).items():
            self._compare(f'{name} of the features', vars(layout)[name], stored)

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
        write_text(self.folder / 'meta.json', json.dumps(meta, indent=1))

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


def _frozen(value: object) -> Any:
    """Turn the lists of JSON back into tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


# --------------------------------------------------------------------------------------------------
# A teacher that computes the features of a sample once and reads them from disk from then on.

_TOLERANCE = {'float64': 5e-3, 'float32': 5e-3, 'bfloat16': 2e-2, 'float16': 2e-2}
"""Largest difference between a stored feature and a new one, relative to the largest absolute value of the new ones."""


class CachedTeacher:
    """Takes the place of a :class:`FrozenTeacher`; its features are those of the first time a sample was seen.

    A batch whose samples are all in the store costs no forward; otherwise the teacher runs on the whole batch, and
    what is missing is stored. Returned is always what the store has, so a sample has the same features at every time
    and in every process. They may differ in the last bits from those that the teacher would compute in the batch at
    hand, because sums are taken in another order in batches of another size.

    The first batch that is in the store, and about one in an epoch from then on, is computed all the same and compared,
    within a tolerance that is generous to rounding (5e-3 of the largest value; 2e-2 in half precision) and far below
    the difference between two images: this finds a view that is random or changes after all, and samples that have
    changed under their names.

    Samples are known by ``sample_idx`` in the metainfo of the data samples; it must be the same for the same image.

    Args:
        teacher: Computes what is missing. Each feature has one row per sample.
        store: Opened for the identity of this teacher, data set and view.
    """

    def __init__(self, teacher: FrozenTeacher, store: FeatureStore) -> None:
        self.teacher = teacher
        self.store = store
        self._num_unchecked = store.num_samples  # since the last check; at a whole data set, the next one is due

    def __deepcopy__(self, memo: dict[int, Any]) -> 'CachedTeacher':
        """Return the teacher itself: copies of its student (EMA) share it."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Look anything else up in the teacher."""
        if name == 'teacher':  # not there yet while an object is unpickled
            raise AttributeError(name)
        return getattr(self.teacher, name)

    @property
    def model(self) -> nn.Module:
        """The frozen model."""
        return self.teacher.model

    def to(self, device: torch.device | str) -> 'CachedTeacher':
        """Move the model."""
        self.teacher.to(device)
        return self

    def features(
        self, inputs: Any, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> dict[str, torch.Tensor]:
        """Return the features of a batch, from the store where it has them.

        Args:
            inputs: The student's batch: a tensor (B, ...), of the same size in all batches.
            data_samples: The B samples.
            mode: As in the student's forward.

        Raises:
            RuntimeError: Samples have no ``sample_idx``, a feature has no row per sample, or a stored feature differs
                from the teacher's.
            ValueError: The store has features of another shape, dtype or precision.
        """
        samples, shape = _sample_indices(data_samples, self.store.num_samples), _input_shape(inputs)
        rows, is_stored = self.store.read(samples)
        device = next(self.model.parameters()).device
        self._num_unchecked += len(samples)
        layout = self.store.layout
        if layout is None or not is_stored.all() or self._num_unchecked >= self.store.num_samples:
            fresh = self.teacher.features(inputs, data_samples=data_samples, mode=mode)
            _check_rows(fresh, len(samples))
            layout = Layout.of(fresh, shape, _precision(device))
            self.store.set_layout(layout)
            if is_stored.any():
                self._check(fresh, layout.unpack(rows[is_stored]), is_stored, samples)
            rows = self.store.write(samples, layout.pack(fresh))
        elif shape != layout.input_shape:
            raise RuntimeError(
                f'teacher cache: expected inputs of shape {layout.input_shape} but got {shape}: images that '
                'are padded to the largest of their batch have no view of their own; resize them to one size, or '
                'train without cache'
            )
        return {tap: feature.to(device) for tap, feature in layout.unpack(rows).items()}

    def _check(
        self,
        fresh: Mapping[str, torch.Tensor],
        stored: Mapping[str, torch.Tensor],
        is_stored: np.ndarray,
        samples: Sequence[int],
    ) -> None:
        for tap, feature in fresh.items():
            expected = feature.detach().cpu()[torch.from_numpy(is_stored)].double()
            difference = (stored[tap].double() - expected).abs().reshape(len(expected), -1).amax(1)
            limit = _TOLERANCE[str(feature.dtype).removeprefix('torch.')] * expected.abs().max()
            if not (difference <= limit).all():  # NaN differs from everything
                worst = np.array(samples)[is_stored][difference.nan_to_num(torch.inf).argmax()]
                raise RuntimeError(
                    f'teacher cache: expected the stored features of {tap!r} within {limit:.2g} of new ones but sample '
                    f'{worst} differs by {difference.max():.2g}; its image has changed, or the view is random after '
                    f'all: delete {self.store.folder}, and train without cache if that does not help'
                )
        self._num_unchecked = 0


def _input_shape(inputs: Any) -> tuple[int, ...]:
    """Return the shape of one sample."""
    if not isinstance(inputs, torch.Tensor):
        raise RuntimeError(
            f'teacher cache: expected a tensor as batch but got {type(inputs).__name__}; train several views without '
            'cache'
        )
    return tuple(inputs.shape[1:])


def _sample_indices(data_samples: Sequence[Any] | None, num_samples: int) -> list[int]:
    data_samples = data_samples or ()
    indices = [sample.sample_idx for sample in data_samples if getattr(sample, 'sample_idx', None) is not None]
    if not indices or len(indices) < len(data_samples):
        raise RuntimeError(
            "teacher cache: expected data samples with a sample_idx but the batch has none; add 'sample_idx' to the "
            'meta_keys of the last transform (PackInputs) of the training pipeline'
        )
    if not all(0 <= index < num_samples for index in indices):
        raise RuntimeError(
            f'teacher cache: expected sample_idx in [0, {num_samples - 1}] but got {min(indices)} to {max(indices)}; '
            'the batch is not of the data set that the cache was opened for'
        )
    return indices


def _check_rows(features: Mapping[str, torch.Tensor], num_samples: int) -> None:
    for tap, feature in features.items():
        if feature.ndim == 0 or len(feature) != num_samples:
            raise RuntimeError(
                f'teacher cache: expected one row per sample at tap {tap!r}, {num_samples}, but got shape '
                f'{tuple(feature.shape)}; train without cache, or tap another module'
            )
        if str(feature.dtype).removeprefix('torch.') not in _TOLERANCE:
            raise RuntimeError(f'teacher cache: expected floats at tap {tap!r} but got {feature.dtype}')


def _precision(device: torch.device) -> str:
    if not torch.is_autocast_enabled(device.type):
        return device.type
    return f'{device.type}, autocast {str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")}'
