"""The terms of CSKD are their weights times the functions; filtered centres follow each network's own logits."""

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import centre_regulariser, inter_category, intra_category
from mmkd_ext.losses import CategoryCentreLoss, InterCategoryLoss, IntraCategoryLoss

LABELS = torch.tensor([0, 0, 1, 2, 1, 2])


def logits():
    return torch.randn(6, 3), torch.randn(6, 3)


def test_weight_times_function():
    student, teacher = logits()
    for loss, expected in (
        (IntraCategoryLoss(0.5), intra_category(student, teacher, LABELS)),
        (
            IntraCategoryLoss(0.5, detach_centre=True, reduction='official'),
            intra_category(student, teacher, LABELS, detach_centre=True, reduction='official'),
        ),
        (InterCategoryLoss(0.5), inter_category(student, teacher, LABELS)),
        (InterCategoryLoss(0.5, reduction='official'), inter_category(student, teacher, LABELS, reduction='official')),
        (CategoryCentreLoss(0.5), centre_regulariser(student, LABELS)),
    ):
        torch.testing.assert_close(loss(student, teacher, labels=LABELS), 0.5 * expected)


def test_filtered_centres_are_those_of_right_predictions():
    student, teacher = logits()
    student[torch.tensor([0, 2, 5]), LABELS[[0, 2, 5]]] += 10
    student[torch.tensor([1, 3, 4]), (LABELS[[1, 3, 4]] + 1) % 3] += 10
    teacher[torch.arange(6), LABELS] += 10
    expected = intra_category(
        student, teacher, LABELS, student_correct=torch.tensor([True, False, True, False, False, True])
    )
    torch.testing.assert_close(IntraCategoryLoss(filtered=True)(student, teacher, labels=LABELS), expected)
    assert not torch.isclose(expected, intra_category(student, teacher, LABELS))


def test_filtered_centres_need_logits():
    with pytest.raises(
        ValueError, match=r'filtered centres: expected student of shape \(N, C\) but got \(6, 3, 1, 1\)'
    ):
        IntraCategoryLoss(filtered=True)(torch.zeros(6, 3, 1, 1), torch.zeros(6, 3, 1, 1), labels=LABELS)


@pytest.mark.parametrize(
    ('config', 'printed'),
    [
        (
            {'type': 'mmkd_ext.IntraCategoryLoss', 'filtered': True},
            "IntraCategoryLoss(loss_weight=1.0, gather=False, detach_centre=False, reduction='sample', filtered=True)",
        ),
        ({'type': 'mmkd_ext.InterCategoryLoss'}, "InterCategoryLoss(loss_weight=1.0, gather=False, reduction='mean')"),
        ({'type': 'mmkd_ext.CategoryCentreLoss'}, 'CategoryCentreLoss(loss_weight=0.1, gather=False)'),
    ],
    ids=['intra', 'inter', 'centre'],
)
def test_built_from_a_config(config, printed):
    assert repr(MODELS.build(config)) == printed


@pytest.mark.parametrize('loss', [IntraCategoryLoss, InterCategoryLoss])
def test_refused_at_construction(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: expected reduction in .* but got 'sum'"):
        loss(reduction='sum')
    with pytest.raises(ValueError, match=rf'{loss.__name__}: expected loss_weight >= 0 but got -1'):
        loss(-1.0)
