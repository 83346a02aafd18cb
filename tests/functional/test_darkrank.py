"""hard_dark_rank against the official code's values, loops in float64 and its invariances."""

import math

import pytest
import torch

from mmkd_ext.functional import hard_dark_rank


def looped(student, teacher, alpha, beta, permute_len):
    students, teachers = student.tolist(), teacher.tolist()
    total = 0.0
    for i in range(len(students)):
        others = sorted((math.dist(teachers[i], teachers[j]), j) for j in range(len(students)) if j != i)
        scores = [-alpha * math.dist(students[i], students[j]) ** beta for _, j in others[:permute_len]]
        for rank in range(len(scores)):
            total -= scores[rank] - math.log(math.fsum(math.exp(score) for score in scores[rank:]))
    return total / len(students)


def random_case(num_samples=6):
    student = 0.5 * torch.randn(num_samples, 4, dtype=torch.float64)
    return student, torch.randn(num_samples, 5, dtype=torch.float64)


SINGLE = ['plain_B2_D4', 'plain_B3_D4', 'plain_B3_D64', 'plain_B8_D4', 'plain_B8_D64', 'plain_B32_D4', 'plain_B32_D64']
SINGLE += ['normalised_B8_D4', 'big_B8_D4', 'equal_B8_D4', 'all_same_student_B8_D4', 'all_same_both_B8_D4']
SINGLE += ['dup_student_B3_D4', 'dup_student_B8_D4', 'dup_student_B32_D64']


@pytest.mark.parametrize('case', SINGLE)
def test_official_values_and_gradients(golden, case):
    vectors = golden('rkd_harddarkrank')
    settings = {
        '': dict(),
        '_a2b2p3': dict(alpha=2.0, beta=2.0, permute_len=3),
        '_a3b3p2': dict(permute_len=2),
    }
    for key, arguments in settings.items():
        if f'{case}_f64{key}_loss' not in vectors:
            continue
        for dtype, rtol in (('f64', 1e-9), ('f32', 1e-5)):
            prefix = f'{case}_{dtype}'
            student, teacher, loss, grad = (
                torch.from_numpy(vectors[prefix + name])
                for name in ('_student', '_teacher', f'{key}_loss', f'{key}_grad')
            )
            result = hard_dark_rank(student.requires_grad_(), teacher, normalize=False, **arguments)
            result.backward()
            torch.testing.assert_close(result, loss, rtol=rtol, atol=1e-6 if dtype == 'f32' else 1e-12)
            # In the norm: single entries are differences of scores that may be a million times larger.
            assert (student.grad - grad).norm() <= rtol * grad.norm()


@pytest.mark.parametrize('case', ['B3_D4', 'B8_D4', 'B8_D64', 'B32_D4'])
def test_official_values_with_tied_ranks(golden, case):
    # Rows 0 and 1 are equal in both networks: which of the two ranks first is open, their gradients' sum is not.
    vectors = golden('rkd_harddarkrank')
    student, teacher, loss, grad = (
        torch.from_numpy(vectors[f'dup_both_{case}_f64_{name}']) for name in ('student', 'teacher', 'loss', 'grad')
    )
    result = hard_dark_rank(student.requires_grad_(), teacher, normalize=False)
    result.backward()
    torch.testing.assert_close(result, loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(student.grad[2:], grad[2:], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(student.grad[:2].sum(0), grad[:2].sum(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ('alpha', 'beta', 'permute_len'), [(3.0, 3.0, 4), (2.0, 3.0, 4), (1.0, 1.0, 2), (0.5, 2.0, 99)]
)
def test_loops_and_gradcheck(alpha, beta, permute_len):
    student, teacher = random_case()
    settings = dict(alpha=alpha, beta=beta, permute_len=permute_len)
    result = hard_dark_rank(student, teacher, normalize=False, **settings)
    assert result.item() == pytest.approx(looped(student, teacher, **settings), rel=1e-10)
    units = (x / x.norm(dim=1, keepdim=True) for x in (student, teacher))
    assert hard_dark_rank(student, teacher, **settings).item() == pytest.approx(looped(*units, **settings), rel=1e-10)
    for normalize in (True, False):
        assert torch.autograd.gradcheck(
            lambda s, normalize=normalize: hard_dark_rank(s, teacher, normalize=normalize, **settings),
            (student.requires_grad_(),),
        )


def test_only_the_order_of_the_teacher_matters():
    student, teacher = random_case()
    torch.testing.assert_close(
        hard_dark_rank(student, 100 * teacher - 3, normalize=False), hard_dark_rank(student, teacher, normalize=False)
    )


def test_blind_to_rotation_and_with_normalize_to_lengths():
    student, teacher = random_case()
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    lengths = torch.linspace(0.1, 10, 6, dtype=torch.float64)[:, None]
    expected = hard_dark_rank(student, teacher)
    torch.testing.assert_close(hard_dark_rank(lengths * student @ rotation, teacher), expected)


def test_permutation_invariant():
    student, teacher = random_case()
    rows = torch.randperm(6)
    torch.testing.assert_close(hard_dark_rank(student[rows], teacher[rows]), hard_dark_rank(student, teacher))


def test_a_sharp_right_order_costs_nothing_a_wrong_one_much():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    # Sample 0 to 3 on a line: the order of each one's neighbours is clear, and alpha makes the student sure of it.
    assert hard_dark_rank(x, x, alpha=50.0, normalize=False) < 1e-9
    assert hard_dark_rank(x, -x[[0, 3, 2, 1]], alpha=50.0, normalize=False) > 1e3


@pytest.mark.parametrize('beta', [0.5, 1.0, 3.0])
def test_equal_embeddings_are_finite(beta):
    student = torch.ones(5, 3, requires_grad=True)
    loss = hard_dark_rank(student, torch.randn(5, 2), beta=beta, normalize=False)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(math.factorial(4)), rel=1e-5)
    assert (student.grad == 0).all()


def test_long_embeddings_are_finite():
    student, teacher = random_case()
    student = (1e8 * student).float().requires_grad_()
    loss = hard_dark_rank(student, teacher.float(), normalize=False)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_no_gradient_into_teacher():
    student, teacher = random_case()
    hard_dark_rank(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype):
    student, teacher = (x.to(dtype) for x in random_case())
    with torch.autocast('cpu', torch.bfloat16):
        loss = hard_dark_rank(student, teacher)
    torch.testing.assert_close(loss, hard_dark_rank(student.float(), teacher.float()), rtol=0, atol=0)


@pytest.mark.parametrize('num_samples', [0, 1])
def test_fewer_than_two_samples_are_a_differentiable_zero(num_samples):
    student = torch.randn(num_samples, 3, requires_grad=True)
    loss = hard_dark_rank(student, torch.randn(num_samples, 3))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_compiles_without_a_break():
    student, teacher = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(hard_dark_rank, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(student, teacher), hard_dark_rank(student, teacher))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(alpha=0.0), 'expected alpha > 0 but got 0.0'),
        (dict(beta=-1.0), 'expected beta > 0 but got -1.0'),
        (dict(permute_len=1), 'expected permute_len >= 2 but got 1; one neighbour has no order'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f'hard_dark_rank: {message}'):
        hard_dark_rank(*random_case(), **settings)


def test_samples_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r'hard_dark_rank: expected student and teacher of shape \(N, ...\)'):
        hard_dark_rank(torch.zeros(3, 2), torch.zeros(4, 2))
