"""CUB-200-2011 for retrieval: 100 species to train on, 100 others to search; nothing is downloaded.

Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, Caltech CNS-TR-2011-001.
"""

from pathlib import Path

import numpy as np

from mmkd_ext.datasets.image_classes import ImageClasses
from mmkd_ext.registry import DATASETS

__all__ = ['CUB200']

_NUM_TRAIN_CLASSES, _NUM_CLASSES = 100, 200


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
            raise ValueError(
                f'CUB200: expected the same images in {lists[0]} and {lists[1].name} but got {len(paths)} and '
                f'{len(labels)}, {len(paths.keys() ^ labels.keys())} of them in one alone; unpack the archive again'
            )
        label_N = self.labels_of_words([labels[number] for number in paths], lists[1], _NUM_CLASSES)
        wanted = (label_N < _NUM_TRAIN_CLASSES) == (self.split == 'train')
        return [f'images/{path}' for path, take in zip(paths.values(), wanted, strict=True) if take], label_N[wanted]
