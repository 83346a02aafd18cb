"""Data sets whose training and test classes are disjoint, as retrieval needs them; nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io

from mmkd_ext.datasets.array_dataset import LabelledDataset, damaged, not_in_folder
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.registry import DATASETS


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
        check_choice(type(self).__name__, ('train', 'test'), split=split)
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
            expected = f'images of split {self.split!r} in the annotations in {root.absolute()}'
            raise damaged(type(self).__name__, expected, 'none')
        if not (root / paths[0]).is_file():
            raise self.wrong_layout(root, f'the image {paths[0]} of the annotations')
        return [
            {'img_path': str(root / path), 'gt_label': label}
            for path, label in zip(paths, np.asarray(labels).tolist(), strict=True)
        ]

    def of_split(
        self, paths: Sequence[str], label_N: np.ndarray, num_train_classes: int
    ) -> tuple[list[str], np.ndarray]:
        """Select the images of the split, where the first classes are those to train on.

        Args:
            paths: N paths.
            label_N: Their labels, (N,).
            num_train_classes: Number of classes to train on.

        Returns:
            Paths and labels of the images that are taken.
        """
        wanted = (label_N < num_train_classes) == (self.split == 'train')
        return [path for path, take in zip(paths, wanted, strict=True) if take], label_N[wanted]

    def wrong_layout(self, root: Path, expected: str) -> FileNotFoundError:
        """Make the error for a folder without what should be in it.

        Args:
            root: The folder.
            expected: What should be there.

        Returns:
            The error, to be raised.
        """
        remedy = 'unpack the official archive there, or set data_root'
        return not_in_folder(type(self).__name__, root, expected, remedy)

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
                raise damaged(
                    type(self).__name__, f'{num_words} words in line {number} of {path}', repr(' '.join(words))
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
            raise damaged(type(self).__name__, f'class numbers from 1 to {num_classes} in {path}', wrong[:3])
        return np.array([int(word) for word in words], dtype=np.int64) - 1


# --------------------------------------------------------------------------------------------------
# CUB-200-2011 for retrieval: 100 species to train on, 100 others to search.
#
# Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, Caltech CNS-TR-2011-001.

_CUB_NUM_TRAIN_CLASSES, _CUB_NUM_CLASSES = 100, 200


@DATASETS.register_module()
class CUB200(ImageClasses):
    """All 5,864 images of the first 100 species (train) or all 5,924 of the last 100 (test).

    The split of images that the data set ships, ``train_test_split.txt``, plays no part: mmpretrain's ``CUB`` is the
    one for classification. Class-disjoint as in Song et al., Deep Metric Learning via Lifted Structured Feature
    Embedding, CVPR 2016, arXiv 1511.06452, and in the official code of RKD.

    Args:
        data_root: ``CUB_200_2011``, with ``images.txt``, ``image_class_labels.txt`` and ``images/``.
        split: ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.image_classes.ImageClasses`.

    Raises:
        FileNotFoundError: If the layout is another one.
        ValueError: For another split, or a list that cannot be read.
    """

    def load_images(self, root: Path) -> tuple[list[str], np.ndarray]:
        """Return the paths of the split's images and their labels, (N,)."""
        lists = [root / name for name in ('images.txt', 'image_class_labels.txt')]
        if not all(path.is_file() for path in lists):
            raise self.wrong_layout(root, 'images.txt, image_class_labels.txt and images/')
        paths, labels = (dict(self.read_lines(path, num_words=2)) for path in lists)
        if paths.keys() != labels.keys():
            found = f'{len(paths)} and {len(labels)}, {len(paths.keys() ^ labels.keys())} of them in one alone'
            raise damaged('CUB200', f'the same images in {lists[0]} and {lists[1].name}', found)
        label_N = self.labels_of_words([labels[number] for number in paths], lists[1], _CUB_NUM_CLASSES)
        return self.of_split([f'images/{path}' for path in paths.values()], label_N, _CUB_NUM_TRAIN_CLASSES)


# --------------------------------------------------------------------------------------------------
# Cars196 for retrieval: 98 models to train on, 98 others to search.
#
# Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR 2013.

_CARS_NUM_TRAIN_CLASSES, _CARS_NUM_CLASSES = 98, 196
# Of the layout in two folders: annotations, and the images that they name.
_TWO_FOLDERS = {
    'devkit/cars_train_annos.mat': 'cars_train',
    'devkit/cars_test_annos_withlabels.mat': 'cars_test',
}


@DATASETS.register_module()
class Cars196(ImageClasses):
    """All 8,054 images of the first 98 models (train) or all 8,131 of the last 98 (test).

    The split of images that the data set ships plays no part: mmpretrain's ``StanfordCars`` is the one for
    classification. Class-disjoint as in Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR
    2016, arXiv 1511.06452, and in the official code of RKD.

    Args:
        data_root: Folder of either official layout: ``cars_annos.mat`` and ``car_ims/``, or ``cars_train/``,
            ``cars_test/`` and ``devkit/`` with ``cars_train_annos.mat`` and ``cars_test_annos_withlabels.mat``.
        split: ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.image_classes.ImageClasses`.

    Raises:
        FileNotFoundError: If the layout is another one.
        ValueError: For another split, or annotations that cannot be read.
    """

    def load_images(self, root: Path) -> tuple[list[str], np.ndarray]:
        """Return the paths of the split's images and their labels, (N,)."""
        if (root / 'cars_annos.mat').is_file():
            paths, label_N = self._read_annotations(root / 'cars_annos.mat', 'relative_im_path')
        elif all((root / name).is_file() for name in _TWO_FOLDERS):
            paths, labels = [], []
            for name, folder in _TWO_FOLDERS.items():
                names, labels_of_folder = self._read_annotations(root / name, 'fname')
                paths += [f'{folder}/{image}' for image in names]
                labels.append(labels_of_folder)
            label_N = np.concatenate(labels)
        else:
            raise self.wrong_layout(root, f'cars_annos.mat and car_ims/, or {" and ".join(_TWO_FOLDERS)}')
        return self.of_split(paths, label_N, _CARS_NUM_TRAIN_CLASSES)

    def _read_annotations(self, path: Path, path_field: str) -> tuple[list[str], np.ndarray]:
        """Read the paths and the labels, from 0, of a Matlab file."""
        try:
            rows = np.atleast_1d(io.loadmat(path, squeeze_me=True)['annotations'])
            paths, numbers = [str(name) for name in rows[path_field]], [str(int(label)) for label in rows['class']]
        except (KeyError, ValueError, TypeError, NotImplementedError, io.matlab.MatReadError) as error:
            expected = f'annotations with {path_field} and class in {path}'
            raise damaged('Cars196', expected, f'{type(error).__name__}: {error}') from error
        return paths, self.labels_of_words(numbers, path, _CARS_NUM_CLASSES)


# --------------------------------------------------------------------------------------------------
# Stanford Online Products: 22,634 products on sale, a few photos of each.
#
# Source: Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016, arXiv 1511.06452.

_SOP_NUM_CLASSES = 22634
_HEADER = ['image_id', 'class_id', 'super_class_id', 'path']


@DATASETS.register_module()
class StanfordOnlineProducts(ImageClasses):
    """The 59,551 images of 11,318 products (train) or the 60,502 of 11,316 others (test), the official split.

    Args:
        data_root: ``Stanford_Online_Products``, with ``Ebay_train.txt``, ``Ebay_test.txt`` and a folder of images for
            each of the 12 kinds of products.
        split: ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`~mmkd_ext.datasets.image_classes.ImageClasses`.

    Raises:
        FileNotFoundError: If the layout is another one.
        ValueError: For another split, or a list that cannot be read.
    """

    def load_images(self, root: Path) -> tuple[list[str], np.ndarray]:
        """Return the paths of the split's images and their labels, (N,)."""
        path = root / f'Ebay_{self.split}.txt'
        if not path.is_file():
            raise self.wrong_layout(root, f'{path.name} and folders such as bicycle_final/')
        rows = self.read_lines(path, num_words=len(_HEADER))
        if rows[:1] != [_HEADER]:
            found = repr(' '.join(rows[0]) if rows else 'an empty file')
            raise damaged('StanfordOnlineProducts', f'the line {" ".join(_HEADER)!r} first in {path}', found)
        labels = self.labels_of_words([row[1] for row in rows[1:]], path, _SOP_NUM_CLASSES)
        return [row[3] for row in rows[1:]], labels
