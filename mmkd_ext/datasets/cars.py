"""Cars196 for retrieval: 98 models to train on, 98 others to search; nothing is downloaded.

Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR 2013.
"""

from pathlib import Path

import numpy as np
from scipy import io

from mmkd_ext.datasets.image_classes import ImageClasses
from mmkd_ext.registry import DATASETS

__all__ = ['Cars196']

_NUM_TRAIN_CLASSES, _NUM_CLASSES = 98, 196
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
        wanted = (label_N < _NUM_TRAIN_CLASSES) == (self.split == 'train')
        return [path for path, take in zip(paths, wanted, strict=True) if take], label_N[wanted]

    def _read_annotations(self, path: Path, path_field: str) -> tuple[list[str], np.ndarray]:
        """Read the paths and the labels, from 0, of a Matlab file."""
        try:
            rows = np.atleast_1d(io.loadmat(path, squeeze_me=True)['annotations'])
            paths, numbers = [str(name) for name in rows[path_field]], [str(int(label)) for label in rows['class']]
        except (KeyError, ValueError, TypeError, NotImplementedError, io.matlab.MatReadError) as error:
            raise ValueError(
                f'Cars196: expected annotations with {path_field} and class in {path} but got {type(error).__name__}: '
                f'{error}; unpack the official archive again'
            ) from error
        return paths, self.labels_of_words(numbers, path, _NUM_CLASSES)
