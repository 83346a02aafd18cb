from itertools import islice

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, DefaultSampler, InfiniteSampler

from mmkd_ext.datasets import Digits, NovelClassSplit
from mmkd_ext.samplers import ClassUniformBatchSampler


def test_labels_come_from_the_data_set():
    digits = Digits()
    labels = digits.get_gt_labels()
    for batch in ClassUniformBatchSampler(DefaultSampler(digits, seed=0), 20, 4):
        assert set(np.unique(labels[batch], return_counts=True)[1]) == {4}


def test_unlabelled_samples_never_come_and_do_not_count():
    split = NovelClassSplit(Digits(), known=4)
    batches = ClassUniformBatchSampler(DefaultSampler(split, seed=0), 8, 4)
    assert len(batches) == split.labelled.sum() // 8
    assert split.labelled[batches.plan(0)].all()


def test_over_an_infinite_sampler_the_epochs_are_those_of_the_default_sampler():
    digits = Digits(indices=40)
    finite = ClassUniformBatchSampler(DefaultSampler(digits, seed=2), 10, 5)
    epochs = []
    for epoch in range(3):
        finite.sampler.set_epoch(epoch)
        epochs += list(finite)
    infinite = ClassUniformBatchSampler(InfiniteSampler(digits, seed=2), 10, 5)
    assert list(islice(infinite, len(epochs))) == epochs


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_runner_builds_it(case, num_workers):
    runner = case.build(
        train_dataloader={
            'batch_size': 20,
            'num_workers': num_workers,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_sampler': {'type': 'mmkd_ext.ClassUniformBatchSampler', 'samples_per_group': 5},
            'drop_last': False,
            'collate_fn': {'type': 'default_collate'},
            'dataset': {'type': 'mmkd_ext.Digits', 'indices': 200, 'pipeline': [{'type': 'PackInputs'}]},
        },
        randomness={'seed': 0},
        default_scope='mmpretrain',
    )
    loader = runner.train_dataloader
    assert len(loader) == 10
    for batch in loader:
        labels = [int(sample.gt_label) for sample in batch['data_samples']]
        assert set(np.unique(labels, return_counts=True)[1]) == {5}


def test_joined_data_sets_are_refused():
    joined = ConcatDataset([Digits(), Digits(split='test')])
    with pytest.raises(TypeError, match=r'ClassUniformBatchSampler: .*get_gt_labels'):
        ClassUniformBatchSampler(DefaultSampler(joined, seed=0), 20, 4)
