"""CIFAR-10 and CIFAR-100 from the official binary files or the official Python pickles; nothing is downloaded.

Both readers return images as (N, 32, 32, 3) uint8 in RGB order and labels as a dict of (N,) integer arrays; neither
executes what a file asks for.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmkd_ext.datasets.array_dataset import ArrayDataset, damaged, not_in_folder
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.registry import DATASETS

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
        expected = f'{num_images * record} bytes ({num_images} records of {record}) in {path}'
        raise damaged('CIFAR', expected, data.size)
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
        raise damaged('CIFAR', f'uint8 data of shape ({num_images}, {IMAGE_BYTES}) in {path}', found)
    labels = {name: np.asarray(content[name]) for name in label_names}
    for name, values in labels.items():
        if values.shape != (num_images,) or values.dtype.kind not in 'iu':
            raise damaged('CIFAR', f'{num_images} integer {name} in {path}', f'{values.dtype} {values.shape}')
    return _to_images(flat), labels


# --------------------------------------------------------------------------------------------------
# The data sets.

# ruff: noqa: SIM905 (a hundred names are easier to read without quotes)


CIFAR10_CLASSES = tuple('airplane automobile bird cat deer dog frog horse ship truck'.split())

CIFAR100_COARSE_CLASSES = tuple(
    """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
    """.split()
)

CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
    """.split()
)


class OfficialForm(NamedTuple):
    """One official form of a data set on disk.

    Attributes:
        folder: Name of the folder that the official archive unpacks to.
        files: Names of the files of each split, in order.
        read: Reader of one file.
        label_names: Names of the labels as the reader wants them.
    """

    folder: str
    files: dict[str, tuple[str, ...]]
    read: Callable[[Path, tuple[str, ...], int], tuple[np.ndarray, dict[str, np.ndarray]]]
    label_names: tuple[str, ...]


class _CIFAR(ArrayDataset):
    """What both data sets share; `images_per_file` are the official numbers, which a truncated file does not have."""

    layouts: ClassVar[tuple[OfficialForm, ...]]
    images_per_file: ClassVar[dict[str, int]]

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        check_choice(type(self).__name__, ('train', 'test'), split=split)
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def _label_name(self, layout: OfficialForm) -> str:
        return layout.label_names[-1]

    def _find(self) -> tuple[Path, OfficialForm]:
        """Return the folder of the files of this split, ``data_root`` itself or the archive's folder in it."""
        root = Path(self.data_root).expanduser()
        for layout in self.layouts:
            for folder in (root, root / layout.folder):
                if all((folder / name).is_file() for name in layout.files[self.split]):
                    return folder, layout
        expected = ' or '.join(
            f'{", ".join(layout.files[self.split])} (there or in {layout.folder}/)' for layout in self.layouts
        )
        remedy = 'unpack the binary or python archive of https://www.cs.toronto.edu/~kriz/cifar.html there'
        raise not_in_folder(type(self).__name__, root, expected, f'{remedy}, or set data_root')

    def load_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images (N, 32, 32, 3) uint8 and labels (N,)."""
        folder, layout = self._find()
        label_name = self._label_name(layout)
        images, labels = [], []
        for name in layout.files[self.split]:
            part, part_labels = layout.read(folder / name, layout.label_names, self.images_per_file[self.split])
            images.append(part)
            labels.append(self._checked(part_labels[label_name], folder / name))
        return np.concatenate(images), np.concatenate(labels)

    def _checked(self, labels: np.ndarray, path: Path) -> np.ndarray:
        num_classes = len(self.metainfo['classes'])
        if labels.min() < 0 or labels.max() >= num_classes:
            found = f'{labels.min()}..{labels.max()}'
            raise damaged(type(self).__name__, f'labels 0..{num_classes - 1} in {path}', found)
        return labels


@DATASETS.register_module()
class CIFAR10(_CIFAR):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32 RGB, 10 classes.

    Args:
        data_root: Folder of ``data_batch_{1..5}.bin`` and ``test_batch.bin`` or of the pickles ``data_batch_{1..5}``
            and ``test_batch``; or the folder in which the official archive was unpacked.
        split: ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.array_dataset.ArrayDataset`.

    Raises:
        FileNotFoundError: If neither form is there.
        ValueError: For another split, or a file that is not what the official one is (size, labels, forbidden pickle).
    """

    METAINFO = {'classes': CIFAR10_CLASSES}  # noqa: RUF012 (mmengine's convention)
    images_per_file: ClassVar = {'train': 10_000, 'test': 10_000}
    layouts = (
        OfficialForm(
            'cifar-10-batches-bin',
            {'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)), 'test': ('test_batch.bin',)},
            read_binary,
            ('labels',),
        ),
        OfficialForm(
            'cifar-10-batches-py',
            {'train': tuple(f'data_batch_{i}' for i in range(1, 6)), 'test': ('test_batch',)},
            read_pickle,
            ('labels',),
        ),
    )


@DATASETS.register_module()
class CIFAR100(_CIFAR):
    """CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 RGB, 100 fine or 20 coarse classes.

    Args:
        data_root: Folder of ``train.bin`` and ``test.bin`` or of the pickles ``train`` and ``test``; or the folder in
            which the official archive was unpacked.
        split: ``'train'`` or ``'test'``.
        label: ``'fine'`` (100 classes) or ``'coarse'`` (20 superclasses).
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.array_dataset.ArrayDataset`.

    Raises:
        FileNotFoundError: If neither form is there.
        ValueError: For another split or label, or a file that is not what the official one is (size, labels, forbidden
            pickle).
    """

    METAINFO = {'classes': CIFAR100_CLASSES}  # noqa: RUF012 (mmengine's convention)
    images_per_file: ClassVar = {'train': 50_000, 'test': 10_000}
    layouts = (
        OfficialForm(
            'cifar-100-binary',
            {'train': ('train.bin',), 'test': ('test.bin',)},
            read_binary,
            ('coarse_labels', 'fine_labels'),
        ),
        OfficialForm(
            'cifar-100-python',
            {'train': ('train',), 'test': ('test',)},
            read_pickle,
            ('coarse_labels', 'fine_labels'),
        ),
    )

    def __init__(self, data_root: str, split: str = 'train', label: str = 'fine', **kwargs: Any) -> None:
        check_choice('CIFAR100', ('fine', 'coarse'), label=label)
        self.label = label
        if label == 'coarse':
            kwargs['metainfo'] = {'classes': CIFAR100_COARSE_CLASSES, **kwargs.get('metainfo', {})}
        super().__init__(data_root=data_root, split=split, **kwargs)

    def _label_name(self, layout: OfficialForm) -> str:
        return f'{self.label}_labels'
