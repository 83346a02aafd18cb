"""Filtered centres of IntraCategoryLoss follow each network's own logits, over processes, too."""

import pytest
import torch
from torch import distributed

from mmkd_ext.functional import intra_category
from mmkd_ext.losses import IntraCategoryLoss

LABELS = torch.tensor([0, 0, 1, 2, 1, 2])


def logits():
    return torch.randn(6, 3), torch.randn(6, 3)


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


def test_filtered_centres_of_features_follow_the_predictions_of_each_network():
    student, teacher = torch.randn(6, 4, 2, 2, dtype=torch.float64), torch.randn(6, 4, 2, 2, dtype=torch.float64)
    right = {'student': [True, False, True, False, False, True], 'teacher': [True, True, False, True, True, False]}
    predicted = {name: torch.where(torch.tensor(r), LABELS, (LABELS + 1) % 3) for name, r in right.items()}
    logits = {f'{name}_logits': torch.eye(3)[classes] for name, classes in predicted.items()}

    expected = 0.0
    for i, label in enumerate(LABELS):
        deviations = []
        for name, x in (('teacher', teacher), ('student', student)):
            correct = [x[j] for j in range(6) if LABELS[j] == label and right[name][j]]
            centre = sum(correct) / len(correct) if correct else x[i]
            deviations.append(x[i] - centre)
        expected += (deviations[0] - deviations[1]).square().sum() / 6
    loss = IntraCategoryLoss(filtered=True)
    torch.testing.assert_close(loss(student, teacher, labels=LABELS, **logits), expected, rtol=1e-12, atol=0)
    leaf = student[:, :, 0, 0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher[:, :, 0, 0], labels=LABELS, **logits), (leaf,))


def _gather(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    part = slice(4 * rank, 4 + 2 * rank)
    own = {name: x[part] for name, x in batch().items()}
    torch.save(IntraCategoryLoss(filtered=True, gather=True)(**own), folder / f'{rank}.pth')
    distributed.destroy_process_group()


def batch():
    source = torch.Generator().manual_seed(3)
    sizes = {'student': 4, 'teacher': 5, 'student_logits': 3, 'teacher_logits': 3}
    return {name: torch.randn(6, size, generator=source) for name, size in sizes.items()} | {'labels': LABELS}


def test_filtered_centres_over_processes(tmp_path):
    torch.multiprocessing.start_processes(_gather, (tmp_path,), nprocs=2, start_method='fork')
    expected = IntraCategoryLoss(filtered=True)(**batch())
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f'{rank}.pth'), expected)


def test_filtered_centres_need_logits():
    maps = torch.zeros(6, 3, 1, 1)
    with pytest.raises(ValueError, match=r'centres: expected student_logits of shape \(N, C\) but got \(6, 3, 1, 1\)'):
        IntraCategoryLoss(filtered=True)(maps, maps, labels=LABELS)
