"""The data set that needs no download: handwritten digits that come with scikit-learn."""

from typing import Any

import numpy as np

from mmkd_ext.datasets.array_dataset import ArrayDataset
from mmkd_ext.registry import DATASETS


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
        if split not in ('train', 'test'):
            raise ValueError(f"Digits: expected split 'train' or 'test' but got {split!r}; choose one of the two")
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
