"""soft_target against a loop in float64, the gradient by hand, and its invariances."""

import math

import pytest
import torch

from mmkd_ext.functional import soft_target


def looped(student, teacher, temperature):
    total = 0.0
    for s_row, t_row in zip(student.double().tolist(), teacher.double().tolist(), strict=True):
        p, q = (_softmax([value / temperature for value in row]) for row in (t_row, s_row))
        total += sum(pk * (math.log(pk) - math.log(qk)) for pk, qk in zip(p, q, strict=True))
    return torch.tensor(temperature**2 * total / len(student), dtype=torch.float64)


def _softmax(values):
    top = max(values)
    exponentials = [math.exp(value - top) for value in values]
    return [value / math.fsum(exponentials) for value in exponentials]


def random_case(num_samples=6, num_classes=5):
    return torch.randn(2, num_samples, num_classes, dtype=torch.float64).unbind()


def test_loops():
    for temperature in [1.0, 4.0, 20.0]:
        student, teacher = random_case()
        result = soft_target(student, teacher, temperature=temperature)
        torch.testing.assert_close(result, looped(student, teacher, temperature), rtol=1e-9, atol=1e-12)


def test_gradient_is_the_difference_of_predictions():
    student, teacher = random_case()
    soft_target(student.requires_grad_(), teacher, temperature=4.0).backward()
    expected = 4.0 * ((student / 4).softmax(-1) - (teacher / 4).softmax(-1)) / len(student)
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-9, atol=1e-12)


def test_zero_for_equal_predictions_whatever_the_offset():
    student, teacher = random_case()
    shifted = teacher + torch.randn(6, 1, dtype=torch.float64)
    assert soft_target(shifted, teacher, temperature=2.0).abs() < 1e-14
    assert soft_target(student, teacher, temperature=2.0) > 0


def test_permutation_invariant():
    student, teacher = random_case()
    rows, classes = torch.randperm(6), torch.randperm(5)
    torch.testing.assert_close(
        soft_target(student[rows][:, classes], teacher[rows][:, classes], temperature=3.0),
        soft_target(student, teacher, temperature=3.0),
    )


def test_no_gradient_into_teacher():
    student, teacher = random_case()
    teacher.requires_grad_()
    soft_target(student.requires_grad_(), teacher, temperature=1.0).backward()
    assert teacher.grad is None


def test_finite_and_float32_for_extreme_logits_under_autocast():
    for dtype in [torch.float16, torch.bfloat16, torch.float32]:
        student, teacher = ((x * 1e4).to(dtype) for x in random_case())
        with torch.autocast('cpu', torch.bfloat16):
            loss = soft_target(student.requires_grad_(), teacher, temperature=1.0)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert student.grad.isfinite().all()


def test_empty_batch_is_a_differentiable_zero():
    student = torch.zeros(0, 5, requires_grad=True)
    loss = soft_target(student, torch.zeros(0, 5), temperature=1.0)
    loss.backward()
    assert loss == 0
    assert student.grad.shape == (0, 5)


def test_bad_temperature():
    for temperature in [0.0, -1.0, math.nan, math.inf]:
        with pytest.raises(ValueError, match=r'soft_target: expected temperature > 0 but got'):
            soft_target(torch.zeros(2, 3), torch.zeros(2, 3), temperature=temperature)


def test_bad_shape():
    with pytest.raises(ValueError, match=r'same classes but got student \(2, 3\), teacher \(2, 4\)'):
        soft_target(torch.zeros(2, 3), torch.zeros(2, 4), temperature=1.0)
    with pytest.raises(ValueError, match=r'expected student of shape \(N, C\) but got \(3,\)'):
        soft_target(torch.zeros(3), torch.zeros(3), temperature=1.0)
