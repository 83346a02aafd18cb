"""similarity_preserving against the official code's values, loops in float64, its invariances and its bound."""

import math

import pytest
import torch

from mmkd_ext.functional import similarity_preserving


def looped(student, teacher):
    return (
        sum(
            (t - s) ** 2
            for t_row, s_row in zip(looped_similarity(teacher), looped_similarity(student), strict=True)
            for t, s in zip(t_row, s_row, strict=True)
        )
        / len(student) ** 2
    )


def looped_similarity(x):
    rows = x.flatten(1).tolist()
    gram = [[math.fsum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
    return [[value / math.sqrt(math.fsum(v * v for v in row)) for value in row] for row in gram]


def random_case(num_samples=6, student_shape=(5,), teacher_shape=(7,)):
    student = torch.randn(num_samples, *student_shape, dtype=torch.float64)
    return student, torch.randn(num_samples, *teacher_shape, dtype=torch.float64)


@pytest.mark.parametrize('size', ['B3', 'B8', 'B32'])
@pytest.mark.parametrize('kind', ['2d_plain', '4d_plain', '2d_dup', '4d_dup'])
def test_official_values_and_gradients(golden, kind, size):
    vectors = golden('repdistiller_sp')
    for dtype, rtol, atol in (('f64', 1e-9, 1e-12), ('f32', 1e-5, 1e-6)):
        student, teacher, loss, grad = (
            torch.from_numpy(vectors[f'{kind}_{size}_{dtype}_{name}'])
            for name in ('student', 'teacher', 'loss', 'grad')
        )
        result = similarity_preserving(student.requires_grad_(), teacher)
        result.backward()
        torch.testing.assert_close(result, loss.squeeze(), rtol=rtol, atol=atol)
        torch.testing.assert_close(student.grad, grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize('size', ['B3', 'B8', 'B32'])
@pytest.mark.parametrize('kind', ['2d', '4d'])
def test_official_values_with_a_zero_row_and_a_bounded_gradient_there(golden, kind, size):
    vectors = golden('repdistiller_sp')
    student, teacher, loss, grad = (
        torch.from_numpy(vectors[f'{kind}_relu_zero_row_{size}_f64_{name}'])
        for name in ('student', 'teacher', 'loss', 'grad')
    )
    zero = (student == 0).flatten(1).all(dim=1)
    assert zero.any()
    result = similarity_preserving(student.requires_grad_(), teacher)
    result.backward()
    torch.testing.assert_close(result, loss.squeeze(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(student.grad[~zero], grad[~zero], rtol=1e-9, atol=1e-12)
    assert grad[zero].norm() > 1e9
    assert student.grad[zero].norm() < 1


def test_vector_of_the_dossier():
    student = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.float64)
    teacher = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.float64)
    assert similarity_preserving(student, teacher).item() == pytest.approx(0.0777964838291976, abs=1e-12)


@pytest.mark.parametrize('shapes', [((5,), (7,)), ((3, 2, 2), (4,)), ((2, 3, 3), (5, 2, 1))])
def test_loops(shapes):
    student, teacher = random_case(6, *shapes)
    assert similarity_preserving(student, teacher).item() == pytest.approx(looped(student, teacher), rel=1e-12)


def test_gradcheck():
    student, teacher = random_case()
    assert torch.autograd.gradcheck(lambda s: similarity_preserving(s, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize('scale', [1e-3, 7.0, 1e12])
def test_blind_to_one_scale_and_to_rotation(scale):
    student, teacher = random_case()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    expected = similarity_preserving(student, teacher)
    torch.testing.assert_close(similarity_preserving(scale * student @ rotation, teacher), expected)
    torch.testing.assert_close(similarity_preserving(student, scale * teacher), expected)


def test_not_blind_to_a_scale_per_sample():
    student, teacher = random_case()
    scales = torch.linspace(1, 3, 6, dtype=torch.float64)[:, None]
    assert (similarity_preserving(scales * student, teacher) - similarity_preserving(student, teacher)).abs() > 1e-3


def test_permutation_invariant():
    student, teacher = random_case()
    rows = torch.randperm(6)
    torch.testing.assert_close(
        similarity_preserving(student[rows], teacher[rows]), similarity_preserving(student, teacher)
    )


def test_zero_for_a_rotated_and_scaled_teacher():
    _, teacher = random_case()
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    student = (3 * teacher @ rotation).requires_grad_()
    loss = similarity_preserving(student, teacher)
    loss.backward()
    assert loss < 1e-28
    assert student.grad.abs().max() < 1e-14
    assert similarity_preserving(teacher, teacher) == 0


@pytest.mark.parametrize('num_samples', [2, 3, 16])
def test_bound_of_the_docstring(num_samples):
    # Opposite signs off the diagonal come close to the bound; after a ReLU nothing is negative.
    for _ in range(20):
        student, teacher = random_case(num_samples, (2,), (2,))
        assert similarity_preserving(student, teacher) <= 4 / num_samples
        assert similarity_preserving(student.relu(), teacher.relu()) <= 2 / num_samples


def test_no_gradient_into_teacher():
    student, teacher = random_case()
    similarity_preserving(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype):
    student, teacher = (x.to(dtype) for x in random_case())
    with torch.autocast('cpu', torch.bfloat16):
        loss = similarity_preserving(student, teacher)
    torch.testing.assert_close(loss, similarity_preserving(student.float(), teacher.float()), rtol=0, atol=0)


def test_maps_whose_similarities_leave_float32_are_finite():
    student, teacher = (x.float() for x in random_case())
    loss = similarity_preserving(1e30 * student, teacher)
    torch.testing.assert_close(loss, similarity_preserving(student, teacher), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('scale', [1e-5, 1e5, 1e12])
def test_gradient_of_features_in_another_unit(scale):
    """Large and small features are divided by their largest before they are multiplied, others are not."""
    student, teacher = (x.float() for x in random_case(num_samples=32))
    gradients = []
    for factor in (1.0, scale):
        leaf = (factor * student).requires_grad_()
        gradients.append(factor * torch.autograd.grad(similarity_preserving(leaf, teacher), leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('dtypes', [(torch.float32, torch.float64), (torch.float64, torch.float32)], ids=str)
def test_the_more_precise_type_wins(dtypes):
    student, teacher = (x.to(dtype) for x, dtype in zip(random_case(), dtypes, strict=True))
    loss = similarity_preserving(student.requires_grad_(), teacher)
    loss.backward()
    assert loss.dtype == torch.float64
    assert student.grad.dtype == dtypes[0]
    torch.testing.assert_close(loss, similarity_preserving(student.double(), teacher.double()))


@pytest.mark.parametrize('num_samples', [0, 1])
def test_fewer_than_two_samples_are_a_differentiable_zero(num_samples):
    student = torch.randn(num_samples, 3, requires_grad=True)
    loss = similarity_preserving(student, torch.randn(num_samples, 3))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_compiles_without_a_break():
    student, teacher = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(similarity_preserving, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(student, teacher), similarity_preserving(student, teacher))


def test_no_second_derivative():
    student, teacher = random_case()
    loss = similarity_preserving(student.requires_grad_(), teacher)
    with pytest.raises(
        RuntimeError, match=r'similarity_preserving: expected a first-order backward but got create_graph'
    ):
        torch.autograd.grad(loss, student, create_graph=True)


def test_samples_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r'similarity_preserving: expected student and teacher of shape \(N, ...\)'):
        similarity_preserving(torch.zeros(3, 2), torch.zeros(4, 2))


def test_parts_of_the_rows_add_up():
    student, teacher = random_case()
    student.requires_grad_()
    whole = similarity_preserving(student, teacher)
    parts = sum(similarity_preserving(student, teacher, rows=rows) for rows in (slice(0, 1), slice(1, 1), slice(1, 6)))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (parts, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
