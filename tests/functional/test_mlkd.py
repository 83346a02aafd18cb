"""batch_class_correlation against loops and the published form, its invariances and its bounds."""

import pytest
import torch

import published_relations
from mmkd_ext.functional import batch_class_correlation

F64 = {'rtol': 1e-9, 'atol': 1e-12}


def random_case(num_samples=6, num_classes=5):
    return torch.randn(2, num_samples, num_classes, dtype=torch.float64).unbind()


def looped(student, teacher, temperature, batch_weight, class_weight):
    q, p = ((x / temperature).softmax(1) for x in (student, teacher))
    samples, classes = range(len(q)), range(q.shape[1])
    of_batch = sum(((p[i] * p[j]).sum() - (q[i] * q[j]).sum()) ** 2 for i in samples for j in samples)
    of_class = sum(((p[:, i] * p[:, j]).sum() - (q[:, i] * q[:, j]).sum()) ** 2 for i in classes for j in classes)
    return batch_weight * of_batch / len(q) + class_weight * of_class / q.shape[1]


@pytest.mark.parametrize('weights', [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize('shape', [(6, 5), (3, 8)])
def test_loops_and_their_gradient(shape, weights):
    student, teacher = random_case(*shape)
    student.requires_grad_()
    loss = batch_class_correlation(student, teacher, temperature=2.0, batch_weight=weights[0], class_weight=weights[1])
    expected = looped(student, teacher, 2.0, *weights)
    torch.testing.assert_close(loss, expected, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, expected)), **F64)


def test_published_form():
    student, teacher = random_case()
    expected = published_relations.batch_class_correlation(student, teacher)
    torch.testing.assert_close(batch_class_correlation(student, teacher), expected, **F64)


def test_gradcheck():
    student, teacher = random_case()
    assert torch.autograd.gradcheck(
        lambda s: batch_class_correlation(s, teacher, temperature=1.0), (student.requires_grad_(),)
    )


def test_invariances_and_bounds():
    student, teacher = random_case()
    expected = batch_class_correlation(student, teacher)
    rows, classes = torch.randperm(6), torch.randperm(5)
    permuted = batch_class_correlation(student[rows][:, classes], teacher[rows][:, classes])
    torch.testing.assert_close(permuted, expected)
    torch.testing.assert_close(batch_class_correlation(student + torch.randn(6, 1).double(), teacher), expected)
    assert batch_class_correlation(teacher, teacher) == 0
    sharp = [1e6 * x for x in (student, teacher)]
    assert batch_class_correlation(*sharp, class_weight=0.0) <= 2 * 6
    assert batch_class_correlation(*sharp, batch_weight=0.0) <= 2 * 6**2 / 5


def test_huge_logits_an_empty_batch_and_no_gradient_into_the_teacher():
    student, teacher = (1e18 * x.float() for x in random_case())
    loss = batch_class_correlation(student.requires_grad_(), teacher.requires_grad_())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert teacher.grad is None
    empty = torch.zeros(0, 5, requires_grad=True)
    batch_class_correlation(empty, torch.zeros(0, 5)).backward()
    assert empty.grad.shape == (0, 5)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r'same classes but got student \(2, 3\), teacher \(2, 4\)'):
        batch_class_correlation(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'batch_class_correlation: expected class_weight >= 0'):
        batch_class_correlation(torch.zeros(2, 3), torch.zeros(2, 3), class_weight=-1.0)
