import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader

from mmkd_ext.datasets import Digits, NovelClassSplit
from mmkd_ext.distill import FrozenTeacher
from mmkd_ext.engine import teacher_features
from mmkd_ext.engine.teacher_features import features_of_dataset, with_pipeline


class Numbers(BaseDataset):
    """Sample i is the number i."""

    def load_data_list(self):
        return [{'number': float(number)} for number in range(7)]


def negative(info):
    return {'inputs': torch.tensor([-info['number'], 1.0])}


class Double(BaseModel):
    def __init__(self):
        super().__init__()
        self.rows, self.maps = nn.Identity(), nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = 2 * torch.stack(inputs)
        self.maps(inputs[:, :, None, None] + torch.tensor([[-1.0, 0.0, 1.0]]))
        return self.rows(inputs)


def run(view, tap='rows', batch_size=3):
    teacher, loader = FrozenTeacher(Double(), [tap]), DataLoader(view, collate_fn=_collate)
    return features_of_dataset(teacher, tap, Double(), view, loader, batch_size)


def _collate(samples):
    return {'inputs': [sample['inputs'] for sample in samples]}


@pytest.mark.parametrize('tap', ['rows', 'maps'])
def test_one_row_per_sample_in_the_order_of_the_data_set(monkeypatch, tap):
    monkeypatch.setattr(teacher_features, '_EXCHANGED_ROWS', 2)
    view = with_pipeline(Numbers(), negative, 'Test')
    assert run(view, tap).tolist() == [[-2.0 * number, 2.0] for number in range(7)]


@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_compute_disjoint_shares_without_padding(monkeypatch, world_size):
    view, computed, shares = with_pipeline(Numbers(), negative, 'Test'), [], []
    monkeypatch.setattr(teacher_features, 'gather', lambda share: shares.append(share) or shares)
    for rank in reversed(range(world_size)):  # the main process last, as it waits for the others
        monkeypatch.setattr(teacher_features, 'get_dist_info', lambda rank=rank: (rank, world_size))
        if rank == 0:
            monkeypatch.setattr(teacher_features, 'gather', lambda share: [share, *reversed(shares)])
        view.pipeline = lambda info: computed.append(info['number']) or negative(info)
        features = run(view)
        assert (features is None) == (rank > 0)
    assert sorted(computed) == list(range(7))
    assert features.tolist() == [[-2.0 * number, 2.0] for number in range(7)]


def test_a_view_leaves_the_data_set_alone_and_shares_its_data():
    numbers = Numbers(pipeline=[])
    for dataset in (numbers, RepeatDataset(numbers, 2), ConcatDataset([numbers, numbers])):
        view = with_pipeline(dataset, negative, 'Test')
        assert len(view) == len(dataset)
        assert view[3]['inputs'][0] == -3
        assert dataset[3]['number'] == 3
    assert with_pipeline(numbers, negative, 'Test').data_bytes is numbers.data_bytes


def test_a_view_of_a_split_and_of_what_num_batch_per_epoch_cuts():
    split = NovelClassSplit(Digits(pipeline=[]), known=5)
    view = with_pipeline(split, Compose([lambda info: info['gt_label'] + 100]), 'Test')
    assert view[0] == split[0]['gt_label'] + 100
    from mmengine.runner.runner import _SlicedDataset

    cut = with_pipeline(_SlicedDataset(split, 4), Compose([lambda info: info['gt_label'] + 100]), 'Test')
    assert len(cut) == 4
    assert cut[0] == view[0]


def test_pipeline_of_evaluation():
    wrapped = {'dataset': {'datasets': [{'dataset': {'pipeline': [{'type': 'A'}]}}, {'pipeline': [{'type': 'B'}]}]}}
    assert teacher_features.test_pipeline(Config({'val_dataloader': wrapped}), 'Test') == [{'type': 'A'}]
    plain = {'dataset': {'pipeline': [{'type': 'C'}]}}
    both = Config({'val_dataloader': None, 'test_dataloader': plain})
    assert teacher_features.test_pipeline(both, 'Test') == [{'type': 'C'}]
    with pytest.raises(ValueError, match=r'^Test: expected a pipeline in the config.* but found none; add one'):
        teacher_features.test_pipeline(Config({'train_dataloader': plain}), 'Test')


def test_errors():
    with pytest.raises(TypeError, match=r'^Test: expected a data set with a pipeline, or a wrapper.* got Bare'):
        with_pipeline(type('Bare', (), {})(), negative, 'Test')
