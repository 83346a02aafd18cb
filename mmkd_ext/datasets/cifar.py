"""CIFAR-10 and CIFAR-100 from the official binary files or the official Python pickles; nothing is downloaded.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""
# ruff: noqa: SIM905 (a hundred names are easier to read without quotes)

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmkd_ext.datasets.array_dataset import ArrayDataset
from mmkd_ext.datasets.cifar_files import read_binary, read_pickle
from mmkd_ext.registry import DATASETS

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


class Layout(NamedTuple):
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

    layouts: ClassVar[tuple[Layout, ...]]
    images_per_file: ClassVar[dict[str, int]]

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any) -> None:
        if split not in ('train', 'test'):
            who = type(self).__name__
            raise ValueError(f"{who}: expected split 'train' or 'test' but got {split!r}; choose one of the two")
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def _label_name(self, layout: Layout) -> str:
        return layout.label_names[-1]

    def _find(self) -> tuple[Path, Layout]:
        """Return the folder of the files of this split, ``data_root`` itself or the archive's folder in it."""
        root = Path(self.data_root).expanduser()
        for layout in self.layouts:
            for folder in (root, root / layout.folder):
                if all((folder / name).is_file() for name in layout.files[self.split]):
                    return folder, layout
        expected = ' or '.join(
            f'{", ".join(layout.files[self.split])} (there or in {layout.folder}/)' for layout in self.layouts
        )
        found = sorted(path.name for path in root.iterdir()) if root.is_dir() else 'no such folder'
        raise FileNotFoundError(
            f'{type(self).__name__}: expected in {root.absolute()} {expected} but got {found}; unpack the binary or '
            'python archive of https://www.cs.toronto.edu/~kriz/cifar.html there, or set data_root'
        )

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
            raise ValueError(
                f'{type(self).__name__}: expected labels 0..{num_classes - 1} in {path} '
                f'but got {labels.min()}..{labels.max()}; unpack the official archive again'
            )
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
        Layout(
            'cifar-10-batches-bin',
            {'train': tuple(f'data_batch_{i}.bin' for i in range(1, 6)), 'test': ('test_batch.bin',)},
            read_binary,
            ('labels',),
        ),
        Layout(
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
        Layout(
            'cifar-100-binary',
            {'train': ('train.bin',), 'test': ('test.bin',)},
            read_binary,
            ('coarse_labels', 'fine_labels'),
        ),
        Layout(
            'cifar-100-python',
            {'train': ('train',), 'test': ('test',)},
            read_pickle,
            ('coarse_labels', 'fine_labels'),
        ),
    )

    def __init__(self, data_root: str, split: str = 'train', label: str = 'fine', **kwargs: Any) -> None:
        if label not in ('fine', 'coarse'):
            raise ValueError(f"CIFAR100: expected label 'fine' or 'coarse' but got {label!r}; choose one of the two")
        self.label = label
        if label == 'coarse':
            kwargs['metainfo'] = {'classes': CIFAR100_COARSE_CLASSES, **kwargs.get('metainfo', {})}
        super().__init__(data_root=data_root, split=split, **kwargs)

    def _label_name(self, layout: Layout) -> str:
        return f'{self.label}_labels'
