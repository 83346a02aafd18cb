"""Base of the data sets that fit into memory as one array of images."""

from typing import Any

import numpy as np

from mmkd_ext.datasets.labelled_dataset import LabelledDataset


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
