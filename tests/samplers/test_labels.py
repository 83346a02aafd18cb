import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset

from mmkd_ext.datasets import Digits, NovelClassSplit
from mmkd_ext.samplers.planned import group_members, labels_of


class Host(BaseDataset):
    """A data set with nothing but what mmengine asks for."""

    def __init__(self, classes):
        self.classes_of = classes
        super().__init__()

    def load_data_list(self):
        return [{'classes': classes} for classes in self.classes_of]

    def get_cat_ids(self, idx):
        return self.get_data_info(idx)['classes']


def test_labels_of_our_data_sets():
    digits = Digits()
    assert labels_of(digits, 'me').tolist() == [info['gt_label'] for info in digits.data_list]
    split = NovelClassSplit(digits, known=5)
    labels = labels_of(split, 'me')
    assert set(labels[split.labelled]) == {0, 1, 2, 3, 4}
    assert set(labels[~split.labelled]) == {-1}


def test_labels_by_get_cat_ids_also_through_a_wrapper():
    host = Host([[2], [0], [0], [0]])
    assert labels_of(host, 'me').tolist() == [2, 0, 0, 0]
    balanced = ClassBalancedDataset(host, oversample_thr=1.0)
    assert labels_of(balanced, 'me').tolist() == [2, 2, 0, 0, 0, 0, 0, 0]


def test_part_of_the_data_under_num_batch_per_epoch():
    digits = Digits()
    digits.__class__ = type('Sliced', (Digits,), {'__len__': lambda self: 50})
    assert len(labels_of(digits, 'me')) == 50


def test_repeated_data_sets_tell_the_labels_of_what_they_repeat():
    repeated = RepeatDataset(Host([[2], [0], [1]]), 2)
    assert labels_of(repeated, 'me').tolist() == [2, 0, 1, 2, 0, 1]
    assert labels_of(RepeatDataset(Digits(), 2), 'me').tolist() == 2 * labels_of(Digits(), 'me').tolist()


def test_a_wrapper_without_labels_is_refused():
    with pytest.raises(TypeError, match=r'me: .*get_gt_labels.*get_cat_ids'):
        labels_of(ConcatDataset([Host([[0], [1]])]), 'me')


def test_a_method_that_is_there_by_name_only_is_refused():
    class Images(BaseDataset):  # as the data sets of mmseg: get_cat_ids() is that of mmengine's base class
        def load_data_list(self):
            return [{'img_path': 'a.png'}]

    with pytest.raises(TypeError, match=r'me: .* but got Images, which tells no class of a sample'):
        labels_of(Images(), 'me')


@pytest.mark.parametrize('labels', [[[0], [0, 2]], [np.array([1]), np.array([0, 2])]])
def test_several_labels_of_one_sample_are_refused_by_name(labels):
    class Several:
        def __len__(self):
            return 2

        def get_gt_labels(self):
            return labels

    with pytest.raises(ValueError, match=r'me: .* one class per sample but sample 1 has \[.*0.*2.*\]; multi-label'):
        labels_of(Several(), 'me')


def test_a_multi_label_data_set_of_mmpretrain():
    from mmpretrain.datasets import MultiLabelDataset

    dataset = MultiLabelDataset.__new__(MultiLabelDataset)
    BaseDataset.__init__(dataset, lazy_init=True)
    dataset.data_list = [{'gt_label': [1]}, {'gt_label': [0, 2]}]
    dataset._fully_initialized, dataset.serialize_data = True, False
    with pytest.raises(ValueError, match=r'sample 1 has \[0, 2\]; multi-label data has no groups'):
        labels_of(dataset, 'me')


def test_several_classes_none_or_no_integers_are_refused():
    with pytest.raises(ValueError, match=r'sample 1 .*\[0, 2\]'):
        labels_of(Host([[1], [0, 2]]), 'me')
    with pytest.raises(ValueError, match=r'sample 0 .*\[\]'):
        labels_of(Host([[], [1]]), 'me')

    class Soft:
        def __len__(self):
            return 2

        def get_gt_labels(self):
            return [0.5, 1.0]

    with pytest.raises(ValueError, match=r'2 samples .*Soft .*float64'):
        labels_of(Soft(), 'me')


def test_group_members_are_sorted_by_group_without_the_unlabelled():
    members, sizes = group_members(np.array([5, -1, 2, 5, -3, 2, 5]))
    assert members.tolist() == [2, 5, 0, 3, 6]
    assert sizes.tolist() == [2, 3]


def test_no_group_at_all():
    members, sizes = group_members(np.array([-1, -1]))
    assert len(members) == len(sizes) == 0
