"""prediction_correlation against NumPy's correlation, the published form, its invariances and its bounds."""

import numpy as np
import pytest
import torch

import published_relations
from mmkd_ext.functional import prediction_correlation, soft_target
from mmkd_ext.ops.logits import standardized

F64 = {'rtol': 1e-9, 'atol': 1e-12}


def random_case(num_samples=6, num_classes=5):
    return torch.randn(2, num_samples, num_classes, dtype=torch.float64).unbind()


def looped(student, teacher, beta, gamma, temperature, multi_label):
    def predict(x):
        e = np.exp(x.numpy() / temperature)
        return e / (1 + e) if multi_label else e / e.sum(1, keepdims=True)

    q, p = predict(student), predict(teacher)
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return temperature**2 * (beta * inter + gamma * intra)


SETTINGS = [
    dict(beta=1.0, gamma=1.0, temperature=1.0, multi_label=False),
    dict(beta=2.0, gamma=0.5, temperature=4.0, multi_label=False),
    dict(beta=0.0, gamma=2.0, temperature=2.0, multi_label=True),
]


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_correlation_of_numpy_and_gradient_of_the_published_form(settings):
    student, teacher = random_case()
    loss = prediction_correlation(student.requires_grad_(), teacher, **settings)
    assert loss.item() == pytest.approx(looped(student.detach(), teacher, **settings), rel=1e-9)
    published = published_relations.prediction_correlation(student, teacher, **settings, eps=0.0)
    torch.testing.assert_close(loss, published, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, published)), **F64)


@pytest.mark.parametrize('settings', [*SETTINGS, dict(standardize=True, temperature=2.0)], ids=str)
def test_gradcheck(settings):
    student, teacher = random_case()
    assert torch.autograd.gradcheck(
        lambda s: prediction_correlation(s, teacher, **settings), (student.requires_grad_(),)
    )


def test_each_position_of_a_map_is_a_sample():
    student, teacher = torch.randn(2, 2, 5, 3, 4, dtype=torch.float64).unbind()
    rows = [x.movedim(1, 3).reshape(-1, 5) for x in (student, teacher)]
    leaves = [student.requires_grad_(), rows[0].clone().requires_grad_()]
    losses = [prediction_correlation(leaves[0], teacher), prediction_correlation(leaves[1], rows[1])]
    torch.testing.assert_close(*losses, **F64)
    of_map, of_rows = (torch.autograd.grad(loss, leaf)[0] for loss, leaf in zip(losses, leaves, strict=True))
    torch.testing.assert_close(of_map.movedim(1, 3).reshape(-1, 5), of_rows, **F64)


def test_blind_to_an_offset_of_logits_and_to_order():
    student, teacher = random_case()
    expected = prediction_correlation(student, teacher)
    torch.testing.assert_close(prediction_correlation(student + 3 * torch.randn(6, 1).double(), teacher), expected)
    rows, classes = torch.randperm(6), torch.randperm(5)
    torch.testing.assert_close(prediction_correlation(student[rows][:, classes], teacher[rows][:, classes]), expected)
    assert prediction_correlation(teacher, teacher) < 1e-14


def test_blind_to_a_scale_and_an_offset_of_predictions():
    # Of a sigmoid, logits can be chosen for any predictions.
    predictions, teacher = torch.rand(6, 5, dtype=torch.float64), random_case()[1]
    for weights in ({'gamma': 0.0}, {'beta': 0.0}):
        found, expected = (
            prediction_correlation(x.logit(), teacher, multi_label=True, **weights)
            for x in (0.2 + 0.5 * predictions, predictions)
        )
        torch.testing.assert_close(found, expected)


def test_a_constant_prediction_has_a_bounded_gradient_where_the_published_one_has_not():
    student, teacher = torch.zeros(6, 16), torch.randn(6, 16)
    student.requires_grad_()
    ours, published = (
        prediction_correlation(student, teacher),
        published_relations.prediction_correlation(student, teacher),
    )
    assert ours == published == 2
    assert torch.autograd.grad(published, student)[0].norm() > 1e4
    assert torch.autograd.grad(ours, student)[0].norm() < 1


def test_one_sample_has_classes_to_relate_and_none_has_nothing():
    student, teacher = random_case(1)
    expected = 1 - np.corrcoef(student.softmax(1)[0], teacher.softmax(1)[0])[0, 1]
    assert prediction_correlation(student, teacher).item() == pytest.approx(expected, rel=1e-9)
    empty = torch.zeros(0, 5, requires_grad=True)
    loss = prediction_correlation(empty, torch.zeros(0, 5))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize('standardize', [False, True])
def test_huge_logits(standardize):
    for scale in (1e4, 1e18):
        student, teacher = (scale * x.float() for x in random_case(num_classes=1000))
        loss = prediction_correlation(student.requires_grad_(), teacher, standardize=standardize)
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()


def test_the_more_precise_type_wins():
    student, teacher = random_case()
    for dtypes in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        s, t = (x.to(dtype) for x, dtype in zip((student, teacher), dtypes, strict=True))
        loss = prediction_correlation(s.requires_grad_(), t)
        loss.backward()
        assert loss.dtype == torch.float64
        assert s.grad.dtype == dtypes[0]


def test_standardised_logits():
    x = random_case()[0].requires_grad_()
    z = standardized(x)
    expected = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(z, expected, **F64)
    weight = torch.randn_like(z)
    torch.testing.assert_close(*(torch.autograd.grad((weight * y).sum(), x)[0] for y in (z, expected)), **F64)
    torch.testing.assert_close(standardized(7 * x + torch.arange(6)[:, None]), z, **F64)
    for constant in (0.0, 3.7, 1e18):
        flat = torch.full((2, 7), constant, requires_grad=True)
        assert (standardized(flat) == 0).all()
        standardized(flat).sum().backward()
        assert flat.grad.isfinite().all()


def test_soft_targets_of_standardised_logits_in_the_form_of_the_official_code():
    """It divides by C - 1 in the deviation: another temperature and weight of the same loss."""
    student, teacher = random_case()
    z_s, z_t = ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True) for x in (student.requires_grad_(), teacher))
    code = soft_target(z_s, z_t, temperature=2.0)
    ours = (1 - 1 / 5) * soft_target(student, teacher, temperature=2.0 * (5 / 4) ** 0.5, standardize=True)
    torch.testing.assert_close(ours, code, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (ours, code)), **F64)


def test_no_gradient_into_teacher_and_no_second_derivative():
    student, teacher = random_case()
    loss = prediction_correlation(student.requires_grad_(), teacher.requires_grad_())
    loss.backward(retain_graph=True)
    assert teacher.grad is None
    with pytest.raises(RuntimeError, match=r'prediction_correlation: expected a first-order backward'):
        torch.autograd.grad(loss, student, create_graph=True)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r'same classes but got student \(2, 3\), teacher \(2, 4\)'):
        prediction_correlation(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'expected student of shape \(N, C\) or \(N, C, H, W\) but got \(2, 3, 4\)'):
        prediction_correlation(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r'prediction_correlation: expected temperature > 0'):
        prediction_correlation(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0)
