"""probabilistic_transfer against loops in float64, the published form, its invariances and degenerate batches."""

import math

import pytest
import torch

import published_relations
from mmkd_ext.functional import probabilistic_transfer

F64 = {'rtol': 1e-9, 'atol': 1e-12}
FORMS = pytest.mark.parametrize('form', ['official', 'paper'])


def random_case(num_samples=6, student_shape=(5,), teacher_shape=(7,)):
    student = torch.randn(num_samples, *student_shape, dtype=torch.float64)
    return student, torch.randn(num_samples, *teacher_shape, dtype=torch.float64)


def looped(student, teacher, form):
    n = len(student)

    def probability(x, i):
        kept = [j for j in range(n) if form == 'official' or j != i]
        cosine = torch.nn.functional.cosine_similarity
        similar = {j: (1 + cosine(x[i].flatten(), x[j].flatten(), dim=0).item()) / 2 for j in kept}
        total = math.fsum(similar.values())
        return {j: value / total for j, value in similar.items()}

    loss = 0.0
    for i in range(n):
        p, q = probability(teacher, i), probability(student, i)
        loss += math.fsum(p[j] * math.log((p[j] + 1e-7) / (q[j] + 1e-7)) for j in p)
    return loss / n**2 if form == 'official' else loss


@FORMS
@pytest.mark.parametrize('shapes', [((5,), (7,)), ((3, 2, 2), (4,))], ids=str)
def test_loops(form, shapes):
    student, teacher = random_case(6, *shapes)
    loss = probabilistic_transfer(student, teacher, form=form)
    assert loss.item() == pytest.approx(looped(student, teacher, form), rel=1e-9)


@pytest.mark.parametrize('num_samples', [2, 6, 33])
def test_published_form_and_its_gradient(num_samples):
    student, teacher = random_case(num_samples)
    student.requires_grad_()
    losses = [f(student, teacher) for f in (probabilistic_transfer, published_relations.probabilistic_transfer)]
    torch.testing.assert_close(*losses, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in losses), **F64)


@FORMS
def test_gradcheck(form):
    student, teacher = random_case()
    assert torch.autograd.gradcheck(
        lambda s: probabilistic_transfer(s, teacher, form=form), (student.requires_grad_(),)
    )


@FORMS
def test_parts_of_the_rows_add_up(form):
    student, teacher = random_case()
    student.requires_grad_()
    whole = probabilistic_transfer(student, teacher, form=form)
    parts = sum(
        probabilistic_transfer(student, teacher, form=form, rows=rows)
        for rows in (slice(0, 1), slice(1, 1), slice(1, 6))
    )
    torch.testing.assert_close(parts, whole, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (parts, whole)), **F64)


@FORMS
def test_blind_to_rotation_lengths_and_order(form):
    student, teacher = random_case()
    expected = probabilistic_transfer(student, teacher, form=form)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(probabilistic_transfer(lengths * student @ rotation, teacher, form=form), expected)
    rows = torch.randperm(6)
    torch.testing.assert_close(probabilistic_transfer(student[rows], teacher[rows], form=form), expected)
    assert probabilistic_transfer(3 * teacher, teacher, form=form).abs() < 1e-14


@FORMS
def test_opposite_features_and_huge_ones_are_finite(form):
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    for student, teacher in ((opposite, torch.ones(3, 2)), (opposite[:2], torch.ones(2, 2)), (1e18 * opposite,) * 2):
        leaf = student.clone().requires_grad_()
        loss = probabilistic_transfer(leaf, teacher, form=form)
        loss.backward()
        assert loss.isfinite()
        assert leaf.grad.isfinite().all()
        assert leaf.grad.norm() < 10


def test_fewer_than_two_samples_are_a_differentiable_zero():
    for num_samples in (0, 1):
        student = torch.randn(num_samples, 3, requires_grad=True)
        loss = probabilistic_transfer(student, torch.randn(num_samples, 3))
        loss.backward()
        assert loss == 0


def test_no_gradient_into_teacher_and_half_precision_in_float32():
    student, teacher = random_case()
    probabilistic_transfer(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None
    half = [x.detach().bfloat16() for x in (student, teacher)]
    with torch.autocast('cpu', torch.bfloat16):
        loss = probabilistic_transfer(*half)
    torch.testing.assert_close(loss, probabilistic_transfer(*(x.float() for x in half)), rtol=0, atol=0)


def test_unknown_form():
    with pytest.raises(ValueError, match=r"expected form in \('official', 'paper'\) but got 'x'"):
        probabilistic_transfer(*random_case(), form='x')
