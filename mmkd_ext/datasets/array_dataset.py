"""Bases of the data sets whose samples have labels, on disk or in memory, and the one that needs no download."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.registry import DATASETS


class LabelledDataset(BaseDataset):
    """A data set of mmengine that tells labels without loading images."""

    def get_gt_labels(self) -> np.ndarray:
        """Return the labels of all samples, (N,) int64, -1 where there is none."""
        self.full_init()
        infos = map(super().get_data_info, range(len(self))) if self.serialize_data else self.data_list
        return np.array([info['gt_label'] for info in infos], dtype=np.int64)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of one sample in a list, as mmengine's class-balanced wrappers expect it."""
        return [super().get_data_info(idx)['gt_label']]


def names_in(folder: Path) -> list[str] | str:
    """Return for a message what lies in a folder, the first dozen of it."""
    return sorted(path.name for path in folder.iterdir())[:12] if folder.is_dir() else 'no such folder'


def not_in_folder(caller: str, folder: Path, expected: str, remedy: str) -> FileNotFoundError:
    """Make the error, to be raised, for a folder without what should be in it."""
    return FileNotFoundError(
        f'{caller}: expected in {folder.absolute()} {expected} but got {names_in(folder)}; {remedy}'
    )


def damaged(caller: str, expected: str, found: object) -> ValueError:
    """Make the error, to be raised, for a file that is not what the official one is."""
    return ValueError(f'{caller}: expected {expected} but got {found}; unpack the official archive again')


class ArrayDataset(LabelledDataset):
    """Images and labels held in memory; a sample is ``dict(img=(H, W, 3) RGB or (H, W) grey uint8, gt_label=int)``.

    RGB is the order of all our in-memory data, of PIL and so of every ``torchvision/...`` transform; their configs need
    no channel conversion (``NumpyToPIL()``, ``MultiViewDataPreprocessor(to_rgb=False)``).

    Serialisation is off: the samples are views of one array, which forked workers share as it is.

    Args:
        **kwargs: ``data_root``, ``pipeline``, ``metainfo``, ``indices``, ``test_mode``, ``lazy_init`` of
            :class:`mmengine.dataset.BaseDataset`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ann_file='', serialize_data=False, **kwargs)

    def load_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the images, (N, H, W, 3) RGB or (N, H, W) grey uint8, and the labels, (N,) of any integer dtype."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own load_arrays(); define it')

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img, gt_label)`` per image."""
        images, labels = self.load_arrays()
        return [{'img': image, 'gt_label': label} for image, label in zip(images, labels.tolist(), strict=True)]


@DATASETS.register_module()
class Digits(ArrayDataset):
    """1797 real images of handwritten digits, 8 x 8 grey values, from ``sklearn.datasets.load_digits``.

    A sample's ``img`` is (8, 8) uint8, the grey values 0..16 scaled to 0..255; PIL and ``PackInputs`` take it as it is,
    and the packed input is (1, 8, 8). Every third image of each class, in file order, is a test image: 1201 training
    and 596 test images, always the same ones.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.

    Args:
        split: ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.array_dataset.ArrayDataset`.

    Raises:
        ValueError: For another split.
    """

    METAINFO = {'classes': tuple('0123456789')}  # noqa: RUF012 (mmengine's convention)

    def __init__(self, split: str = 'train', **kwargs: Any) -> None:
        check_choice('Digits', ('train', 'test'), split=split)
        self.split = split
        super().__init__(**kwargs)

    def load_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images (N, 8, 8) uint8 and labels (N,)."""
        from sklearn.datasets import load_digits  # takes a second: only when the data is really used

        digits = load_digits()
        is_test = np.zeros(len(digits.target), dtype=bool)
        for label in range(10):
            is_test[np.flatnonzero(digits.target == label)[2::3]] = True
        chosen = is_test if self.split == 'test' else ~is_test
        return np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8), digits.target[chosen]
