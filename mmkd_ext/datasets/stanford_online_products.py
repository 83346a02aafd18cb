"""Stanford Online Products: 22,634 products on sale, a few photos of each; nothing is downloaded.

Source: Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016, arXiv 1511.06452.
"""

from pathlib import Path

import numpy as np

from mmkd_ext.datasets.image_classes import ImageClasses
from mmkd_ext.registry import DATASETS

__all__ = ['StanfordOnlineProducts']

_NUM_CLASSES = 22634
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
            raise ValueError(
                f'StanfordOnlineProducts: expected the line {" ".join(_HEADER)!r} first in {path} but got '
                f'{" ".join(rows[0]) if rows else "an empty file"!r}; unpack the official archive again'
            )
        labels = self.labels_of_words([row[1] for row in rows[1:]], path, _NUM_CLASSES)
        return [row[3] for row in rows[1:]], labels
