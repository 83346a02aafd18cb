"""What messages and losses ask of names and of batches."""

from types import SimpleNamespace

import pytest
import torch

from mmkd_ext.ops.arguments import labels_of_batch, near_misses


@pytest.mark.parametrize(
    ('name', 'near'),
    [
        ('nek', "did you mean one of ['neck']?"),
        ('head.gap', "did you mean one of ['neck.gap']?"),
        ('xyz', ''),
    ],
)
def test_near_names_are_told_and_so_are_those_with_the_same_last_word(name, near):
    assert near_misses(name, iter(['backbone', 'neck', 'neck.gap'])) == near


def test_labels_are_those_of_all_samples_or_none():
    labelled = [SimpleNamespace(gt_label=torch.tensor([label])) for label in (3, -1)]
    assert labels_of_batch(labelled).tolist() == [3, -1]
    for batch in (None, [], [*labelled, SimpleNamespace()]):
        assert labels_of_batch(batch) is None
