import numpy as np
import pytest

from mmkd_ext.datasets.array_dataset import LabelledDataset


class Listed(LabelledDataset):
    def load_data_list(self):
        return [{'gt_label': label} for label in (3, -1, 0, 3)]

    def get_data_info(self, idx):
        raise AssertionError('loads an image')


@pytest.mark.parametrize('settings', [{}, {'serialize_data': False}, {'lazy_init': True}, {'indices': [0, 1, 2, 3]}])
def test_labels_need_no_image(settings):
    dataset = Listed(**settings)
    assert [dataset.get_cat_ids(index) for index in range(4)] == [[3], [-1], [0], [3]]
    labels = Listed(**settings).get_gt_labels()
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, -1, 0, 3]


def test_labels_of_a_part():
    assert Listed(indices=[2, 0]).get_gt_labels().tolist() == [0, 3]
