"""Base of the data sets whose samples have labels."""

import numpy as np
from mmengine.dataset import BaseDataset

__all__ = ['LabelledDataset']


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
