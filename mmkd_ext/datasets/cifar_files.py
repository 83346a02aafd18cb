"""Readers of the two official file formats of CIFAR; nothing here executes what a file asks for.

Both readers return images as (N, 32, 32, 3) uint8 in RGB order and labels as a dict of (N,) integer arrays.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_BYTES = 3 * 32 * 32

# Python 2 wrote the official files; NumPy 2 and newer pickle protocols give the same constructors other addresses.
_ALLOWED_GLOBALS = {
    ('_codecs', 'encode'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    ('numpy.core.multiarray', '_reconstruct'),
    ('numpy._core.multiarray', '_reconstruct'),
    ('numpy.core.numeric', '_frombuffer'),
    ('numpy._core.numeric', '_frombuffer'),
}


class _ForbiddenGlobalError(pickle.UnpicklingError):
    """A pickle names a function or class that data has no need of."""


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of arrays, numbers, text and containers of these; it looks up no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise _ForbiddenGlobalError(f'{module}.{name}')
        return super().find_class(module, name)


def _to_images(flat: np.ndarray) -> np.ndarray:
    """Turn (N, 3072) rows of a red, a green and a blue plane into (N, 32, 32, 3)."""
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read_binary(path: Path, label_names: tuple[str, ...], num_images: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a file of records ``label bytes | 1024 red | 1024 green | 1024 blue``.

    Args:
        path: The file, such as ``data_batch_1.bin`` or ``train.bin``.
        label_names: One name per leading label byte of a record.
        num_images: Number of records that the file must have.

    Returns:
        Images (N, 32, 32, 3) uint8 and ``{label name: (N,) uint8}``.

    Raises:
        ValueError: If the file has another size.
    """
    record = len(label_names) + IMAGE_BYTES
    data = np.fromfile(path, dtype=np.uint8)
    if data.size != num_images * record:
        raise ValueError(
            f'CIFAR: expected {num_images * record} bytes ({num_images} records of {record}) in {path} '
            f'but got {data.size}; the file is truncated or another one, unpack the official archive again'
        )
    rows = data.reshape(num_images, record)
    labels = {name: rows[:, column] for column, name in enumerate(label_names)}
    return _to_images(rows[:, len(label_names) :]), labels


def _unpickle(path: Path) -> dict:
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding='latin1').load()
    except _ForbiddenGlobalError as error:
        raise ValueError(
            f'CIFAR: expected a pickle of arrays and text but {path} calls {error}, which was refused; '
            'this is not the official file and may be hostile, delete it'
        ) from None
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise ValueError(
            f'CIFAR: expected a pickle but {path} is damaged ({type(error).__name__}: {error}); '
            'unpack the official archive again'
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f'CIFAR: expected a pickled dict in {path} but got {type(content).__name__}; check the file')
    return content


def read_pickle(path: Path, label_names: tuple[str, ...], num_images: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a pickled dict with ``data`` (N, 3072) uint8 and lists of N labels, through an allow-list of constructors.

    Args:
        path: The file, such as ``data_batch_1`` or ``train``.
        label_names: Keys of the label lists.
        num_images: Number of images that the file must have.

    Returns:
        Images (N, 32, 32, 3) uint8 and ``{label name: (N,) int64}``.

    Raises:
        ValueError: If the pickle is damaged, calls anything but NumPy's array constructors, or lacks images or labels.
    """
    content = _unpickle(path)
    missing = [key for key in ('data', *label_names) if key not in content]
    if missing:
        raise ValueError(f'CIFAR: expected the keys data, {", ".join(label_names)} in {path} but {missing} are missing')
    flat = content['data']
    if not isinstance(flat, np.ndarray) or flat.dtype != np.uint8 or flat.shape != (num_images, IMAGE_BYTES):
        found = f'{flat.dtype} {flat.shape}' if isinstance(flat, np.ndarray) else type(flat).__name__
        raise ValueError(
            f'CIFAR: expected uint8 data of shape ({num_images}, {IMAGE_BYTES}) in {path} but got {found}; '
            'unpack the official archive again'
        )
    labels = {name: np.asarray(content[name]) for name in label_names}
    for name, values in labels.items():
        if values.shape != (num_images,) or values.dtype.kind not in 'iu':
            raise ValueError(
                f'CIFAR: expected {num_images} integer {name} in {path} but got {values.dtype} {values.shape}; '
                'unpack the official archive again'
            )
    return _to_images(flat), labels
