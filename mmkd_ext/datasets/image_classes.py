"""Base of the data sets whose training and test classes are disjoint, as retrieval needs them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkd_ext.datasets.labelled_dataset import LabelledDataset

__all__ = ['ImageClasses']


class ImageClasses(LabelledDataset):
    """Images on disk, in a split by classes: no class of ``'train'`` has an image in ``'test'``.

    A sample is ``dict(img_path=str, gt_label=int)``. Labels are those of the whole data set, from 0, so that a label
    means the same class in both splits.

    Args:
        data_root: Folder of the unpacked data set.
        split: ``'train'`` or ``'test'``.
        **kwargs: ``pipeline``, ``metainfo``, ``indices``, ``test_mode``, ``lazy_init`` of
            :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the layout is another one.
        ValueError: For another split, one without images, or an annotation that cannot be read.
    """

    def __init__(self, data_root: str, split: str, **kwargs: Any) -> None:
        if split not in ('train', 'test'):
            raise ValueError(
                f"{type(self).__name__}: expected split 'train' or 'test' but got {split!r}; choose one of the two"
            )
        self.split = split
        super().__init__(ann_file='', data_root=data_root, **kwargs)

    def load_images(self, root: Path) -> tuple[Sequence[str], np.ndarray]:
        """Return the paths of the split's images, relative to ``root``, and their labels, (N,) integers."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own load_images(); define it')

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img_path, gt_label)`` per image."""
        root = Path(self.data_root).expanduser()
        paths, labels = self.load_images(root)
        if len(paths) == 0:
            raise ValueError(
                f'{type(self).__name__}: expected images of split {self.split!r} in the annotations in '
                f'{root.absolute()} but got none; unpack the official archive again'
            )
        if not (root / paths[0]).is_file():
            raise self.wrong_layout(root, f'the image {paths[0]} of the annotations')
        return [
            {'img_path': str(root / path), 'gt_label': label}
            for path, label in zip(paths, np.asarray(labels).tolist(), strict=True)
        ]

    def wrong_layout(self, root: Path, expected: str) -> FileNotFoundError:
        """Make the error for a folder without what should be in it.

        Args:
            root: The folder.
            expected: What should be there.

        Returns:
            The error, to be raised.
        """
        found = sorted(path.name for path in root.iterdir())[:12] if root.is_dir() else 'no such folder'
        return FileNotFoundError(
            f'{type(self).__name__}: expected in {root.absolute()} {expected} but got {found}; '
            'unpack the official archive there, or set data_root'
        )

    def read_lines(self, path: Path, num_words: int) -> list[list[str]]:
        """Read a text file of a fixed number of words a line.

        Args:
            path: File of UTF-8 text.
            num_words: Words of each line.

        Returns:
            The words of each line; empty lines are left out.

        Raises:
            ValueError: If a line has another number of words.
        """
        lines = [line.split() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
        for number, words in enumerate(lines, start=1):
            if len(words) != num_words:
                raise ValueError(
                    f'{type(self).__name__}: expected {num_words} words in line {number} of {path} but got '
                    f'{" ".join(words)!r}; unpack the official archive again'
                )
        return lines

    def labels_of_words(self, words: Sequence[str], path: Path, num_classes: int) -> np.ndarray:
        """Turn class numbers, from 1, into labels.

        Args:
            words: N words.
            path: File that they come from.
            num_classes: Classes of the whole data set.

        Returns:
            (N,) int64, from 0.

        Raises:
            ValueError: If a word is no number from 1 to ``num_classes``.
        """
        wrong = [word for word in words if not (word.isdecimal() and 1 <= int(word) <= num_classes)]
        if wrong:
            raise ValueError(
                f'{type(self).__name__}: expected class numbers from 1 to {num_classes} in {path} but got '
                f'{wrong[:3]}; unpack the official archive again'
            )
        return np.array([int(word) for word in words], dtype=np.int64) - 1
