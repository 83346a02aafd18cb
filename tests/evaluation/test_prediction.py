import math

import numpy as np
import pytest
import torch

from mmkd_ext.evaluation import Prediction, best_head, read_prediction


def sample(**changes):
    known, novel = torch.tensor([0.1, 0.6, 0.2]), torch.tensor([[0.5, 0.3], [0.2, 0.9]])
    fields = {'split_name': 'test', 'gt_label': torch.tensor([4]), 'known_logits': known, 'novel_logits': novel}
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def test_each_head_competes_alone_and_with_the_known_classes():
    prediction = read_prediction(sample(), num_known=3, caller='test')
    assert prediction == Prediction('test', 4, task_aware=(0, 1), task_agnostic=(1, 4))


def test_without_novel_head_the_known_head_answers():
    prediction = read_prediction(sample(novel_logits=None), num_known=3, caller='test')
    assert prediction == Prediction('test', 4, task_aware=(), task_agnostic=(1,))


def test_agrees_with_numpy_on_random_logits():
    known, novel = torch.randn(7), torch.randn(5, 4)
    prediction = read_prediction(sample(known_logits=known, novel_logits=novel), num_known=7, caller='test')
    for head in range(5):
        scores = np.concatenate([known.numpy(), novel[head].numpy()])
        assert prediction.task_agnostic[head] == scores.argmax()
        assert prediction.task_aware[head] == scores[7:].argmax()


def test_hidden_label_is_refused():
    with pytest.raises(ValueError, match='got -1; set hide_labels=False'):
        read_prediction(sample(gt_label=torch.tensor([-1])), num_known=3, caller='test')


def test_width_must_be_the_number_of_known_classes():
    with pytest.raises(ValueError, match=r'expected known_logits of shape \(4,\) but got \(3,\)'):
        read_prediction(sample(), num_known=4, caller='test')


@pytest.mark.parametrize('field', ['split_name', 'gt_label', 'known_logits'])
def test_missing_field_is_named(field):
    with pytest.raises(KeyError, match=f"test: expected predicted samples with '{field}'"):
        read_prediction(sample(**{field: None}), num_known=3, caller='test')


@pytest.mark.parametrize(
    ('objective', 'best'),
    [([2.0, 1.0, 3.0], 1), ([math.nan, 5.0, 4.0], 2), ([math.nan, math.nan], 0), ([1.0, 1.0], 0), ([], 0)],
)
def test_best_head_has_the_lowest_training_objective(objective, best):
    assert best_head(objective) == best
