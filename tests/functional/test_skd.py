"""similarity_direction against NumPy's inverse and the published form, its invariances and its bounded gradient."""

import numpy as np
import pytest
import torch

import published_relations
from mmkd_ext.functional import similarity_direction

F64 = {'rtol': 1e-9, 'atol': 1e-12}


def random_case(num_samples=6, num_classes=5):
    return torch.randn(2, num_samples, num_classes, dtype=torch.float64).unbind()


@pytest.mark.parametrize('tikhonov', [0.1, 1e-4])
@pytest.mark.parametrize('shape', [(6, 5), (2, 5), (12, 3)])
def test_inverse_of_numpy_and_gradient_of_the_published_form(shape, tikhonov):
    student, teacher = random_case(*shape)
    loss = similarity_direction(student.requires_grad_(), teacher, tikhonov=tikhonov)
    s, t = (x.detach().numpy() / np.linalg.norm(x.detach(), axis=1, keepdims=True) for x in (student, teacher))
    gap = (s @ s.T - t @ t.T) / shape[1]
    inverse = np.linalg.inv(np.cov(gap, rowvar=False) + tikhonov * np.eye(len(gap)))
    assert loss.item() == pytest.approx(np.mean([np.sqrt(row @ inverse @ row) for row in gap]), rel=1e-9)
    published = published_relations.similarity_direction(student, teacher, tikhonov)
    torch.testing.assert_close(loss, published, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, published)), **F64)


def test_gradcheck():
    student, teacher = random_case()
    assert torch.autograd.gradcheck(lambda s: similarity_direction(s, teacher), (student.requires_grad_(),))


def test_blind_to_rotation_lengths_and_order():
    student, teacher = random_case()
    expected = similarity_direction(student, teacher)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(similarity_direction(lengths * student @ rotation, teacher), expected)
    rows = torch.randperm(6)
    torch.testing.assert_close(similarity_direction(student[rows], teacher[rows]), expected)


def test_at_the_teacher_the_gradient_is_zero_where_the_published_one_is_nan():
    _, teacher = random_case()
    student = teacher.clone().requires_grad_()
    ours, published = similarity_direction(student, teacher), published_relations.similarity_direction(student, teacher)
    assert ours == published == 0
    assert torch.autograd.grad(published, student)[0].isnan().any()
    assert (torch.autograd.grad(ours, student)[0] == 0).all()


def test_near_the_teacher_the_gradient_stays_bounded():
    _, teacher = random_case()
    for distance in (1e-3, 1e-6, 1e-9):
        student = (teacher + distance * torch.randn_like(teacher)).requires_grad_()
        similarity_direction(student, teacher).backward()
        assert student.grad.norm() < 10


def test_huge_logits_too_few_samples_and_no_gradient_into_the_teacher():
    student, teacher = (1e18 * x.float() for x in random_case())
    loss = similarity_direction(student.requires_grad_(), teacher.requires_grad_())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert teacher.grad is None
    for num_samples in (0, 1):
        few = torch.randn(num_samples, 5, requires_grad=True)
        loss = similarity_direction(few, torch.randn(num_samples, 5))
        loss.backward()
        assert loss == 0


def test_what_is_refused():
    with pytest.raises(ValueError, match=r'similarity_direction: expected tikhonov > 0'):
        similarity_direction(torch.zeros(2, 3), torch.zeros(2, 3), tikhonov=0.0)
    with pytest.raises(ValueError, match=r'same classes but got'):
        similarity_direction(torch.zeros(2, 3), torch.zeros(2, 4))
