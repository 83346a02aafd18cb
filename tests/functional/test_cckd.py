"""correlation_congruence against loops in float64, the polynomial's known error, its invariances and limits."""

import functools
import math

import pytest
import torch

from mmkd_ext.functional import correlation_congruence

KERNELS = [
    dict(),
    dict(order=1),
    dict(order=2, gamma=0.8),
    dict(order=5),
    dict(gamma='median'),
    dict(gamma='median', order=3),
    dict(normalize=False),
    dict(normalize=False, order=2),
    dict(normalize=False, gamma='median'),
    dict(kernel='bilinear'),
    dict(kernel='bilinear', normalize=False),
    dict(kernel='mmd'),
    dict(kernel='mmd', normalize=False),
]


def looped(student, teacher, kernel='gaussian', gamma=0.4, order=None, normalize=True):
    students, teachers = ([looped_unit(row) if normalize else row for row in x.tolist()] for x in (student, teacher))
    if gamma == 'median':
        gamma = looped_gamma(teachers)
    total = 0.0
    for i in range(len(students)):
        for j in range(len(students)):
            s, t = (looped_kernel(x[i], x[j], kernel, gamma, order) for x in (students, teachers))
            total += (s - t) ** 2
    return total / len(students) ** 2


def looped_unit(row):
    length = math.sqrt(math.fsum(value * value for value in row))
    return [value / length for value in row]


def looped_kernel(x, y, kernel, gamma, order):
    if kernel == 'mmd':
        return abs(math.fsum(x) / len(x) - math.fsum(y) / len(y))
    product = math.fsum(a * b for a, b in zip(x, y, strict=True))
    if kernel == 'bilinear':
        return product
    if order is None:
        return math.exp(-gamma * math.dist(x, y) ** 2)
    squares = math.fsum(a * a for a in (*x, *y))
    series = sum((2 * gamma * product) ** p / math.factorial(p) for p in range(order + 1))
    return math.exp(-gamma * squares) * series


def looped_gamma(teachers):
    distances = sorted(math.dist(x, y) for i, x in enumerate(teachers) for y in teachers[:i])
    return 1 / (2 * distances[(len(distances) - 1) // 2] ** 2)


def random_case(num_samples=6):
    return torch.randn(num_samples, 4, dtype=torch.float64), torch.randn(num_samples, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        (dict(order=1), 0.0143570857240644),
        (dict(order=2), 0.0236272467208395),
        (dict(order=3), 0.0256326588182046),
        (dict(), 0.0259591705064262),
        (dict(kernel='bilinear', normalize=False), 1.0),
        (dict(kernel='mmd', normalize=False), 0.0864197530864198),
    ],
    ids=str,
)
def test_vectors_of_the_dossier(settings, expected):
    student = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]], dtype=torch.float64)
    teacher = torch.tensor([[1, 0], [1, 1], [0, 2]], dtype=torch.float64)
    assert correlation_congruence(student, teacher, **settings).item() == pytest.approx(expected, abs=1e-12)


def test_loops():
    for settings in KERNELS:
        student, teacher = random_case()
        result = correlation_congruence(student, teacher, **settings)
        assert result.item() == pytest.approx(looped(student, teacher, **settings), rel=1e-10)


def test_gradcheck():
    for settings in KERNELS:
        student, teacher = random_case()
        function = functools.partial(correlation_congruence, **settings)
        assert torch.autograd.gradcheck(function, (student.requires_grad_(), teacher))


def test_permutation_invariant_and_zero_for_an_equal_teacher():
    for settings in KERNELS:
        student, teacher = random_case()
        rows = torch.randperm(6)
        torch.testing.assert_close(
            correlation_congruence(student[rows], teacher[rows], **settings),
            correlation_congruence(student, teacher, **settings),
        )
        student = teacher.clone().requires_grad_()
        loss = correlation_congruence(student, teacher, **settings)
        loss.backward()
        assert loss == 0
        assert (student.grad == 0).all()


def test_blind_to_rotation():
    for settings in [s for s in KERNELS if s.get('kernel') != 'mmd']:
        student, teacher = random_case()
        rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
        torch.testing.assert_close(
            correlation_congruence(student @ rotation, teacher, **settings),
            correlation_congruence(student, teacher, **settings),
        )


def test_blind_to_lengths_when_normalized():
    for settings in [s for s in KERNELS if s.get('normalize', True)]:
        student, teacher = random_case()
        lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
        torch.testing.assert_close(
            correlation_congruence(lengths * student, teacher, **settings),
            correlation_congruence(student, teacher, **settings),
        )


def test_exact_gaussian_of_raw_features_is_blind_to_a_shift():
    student, teacher = random_case()
    torch.testing.assert_close(
        correlation_congruence(student + 1e4, teacher, normalize=False),
        correlation_congruence(student, teacher, normalize=False),
        rtol=1e-9,
        atol=0,
    )


def test_median_width_is_blind_to_a_scale_of_both_networks():
    student, teacher = random_case()
    settings = dict(normalize=False, gamma='median')
    torch.testing.assert_close(
        correlation_congruence(1e3 * student, 1e3 * teacher, **settings),
        correlation_congruence(student, teacher, **settings),
    )


def test_polynomial_tends_to_the_exact_kernel():
    for normalize in [True, False]:
        student, teacher = random_case()
        exact = correlation_congruence(student, teacher, normalize=normalize)
        assert (correlation_congruence(student, teacher, normalize=normalize, order=2) - exact).abs() > 1e-5
        torch.testing.assert_close(correlation_congruence(student, teacher, normalize=normalize, order=80), exact)


def test_error_of_the_polynomial_is_the_poisson_tail():
    for order, error in [(1, 0.191), (2, 0.0474), (3, 0.0091), (4, 0.0014), (5, 0.0002)]:
        # Equal features: the exact kernel is 1 everywhere, the polynomial P[Poisson(2 gamma) <= order]. Against
        # opposite features in the teacher, whose kernel is known, the difference of the losses shows the error.
        same = torch.ones(2, 1, dtype=torch.float64)
        opposite = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        z = 0.8
        tail = 1 - math.exp(-z) * sum(z**p / math.factorial(p) for p in range(order + 1))
        assert tail == pytest.approx(error, abs=5e-4)
        apart = math.exp(-z) * sum((-z) ** p / math.factorial(p) for p in range(order + 1))
        # The diagonal cancels: both entries off it differ by (1 - tail) - apart.
        expected = 2 * (1 - tail - apart) ** 2 / 4
        assert correlation_congruence(same, opposite, order=order).item() == pytest.approx(expected, rel=1e-12)


def test_first_order_is_the_bilinear_kernel_up_to_a_factor():
    student, teacher = random_case()
    factor = (0.8 * math.exp(-0.8)) ** 2
    torch.testing.assert_close(
        correlation_congruence(student, teacher, order=1),
        factor * correlation_congruence(student, teacher, kernel='bilinear'),
    )


def test_long_raw_features_are_finite():
    for order in [None, 2, 12]:
        for length in [10.0, 1e4, 1e8]:
            student, teacher = (length * x.float() for x in random_case())
            loss = correlation_congruence(student.requires_grad_(), teacher, normalize=False, order=order)
            loss.backward()
            assert 0 <= loss <= 1
            assert student.grad.isfinite().all()


def test_equal_teacher_features_have_no_median_but_a_finite_loss():
    student, _ = random_case()
    loss = correlation_congruence(student.requires_grad_(), torch.ones(6, 2, dtype=torch.float64), gamma='median')
    loss.backward()
    expected = correlation_congruence(student, torch.ones(6, 2, dtype=torch.float64), gamma=1.0)
    torch.testing.assert_close(loss, expected)


def test_no_gradient_into_teacher():
    student, teacher = random_case()
    for settings in KERNELS:
        correlation_congruence(student.requires_grad_(), teacher.requires_grad_(), **settings).backward()
    assert teacher.grad is None


def test_half_precision_under_autocast_is_computed_in_float32():
    for dtype in [torch.float16, torch.bfloat16]:
        student, teacher = (x.to(dtype) for x in random_case())
        with torch.autocast('cpu', torch.bfloat16):
            loss = correlation_congruence(student, teacher)
        torch.testing.assert_close(loss, correlation_congruence(student.float(), teacher.float()), rtol=0, atol=0)


def test_fewer_than_two_samples_are_a_differentiable_zero():
    for num_samples in [0, 1]:
        for settings in KERNELS:
            student = torch.randn(num_samples, 3, requires_grad=True)
            loss = correlation_congruence(student, torch.randn(num_samples, 3), **settings)
            loss.backward()
            assert loss == 0
            assert (student.grad == 0).all()


def test_maps_are_flattened():
    student, teacher = torch.randn(4, 2, 3, 3), torch.randn(4, 5, 2, 2)
    torch.testing.assert_close(
        correlation_congruence(student, teacher), correlation_congruence(student.flatten(1), teacher.flatten(1))
    )


def test_compiles_without_a_break():
    for settings in KERNELS[:5]:
        student, teacher = random_case()
        torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
        compiled = torch.compile(correlation_congruence, fullgraph=True, backend='eager')
        torch.testing.assert_close(
            compiled(student, teacher, **settings), correlation_congruence(student, teacher, **settings)
        )


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(kernel='rbf'), ValueError, r"expected kernel in \('gaussian', 'bilinear', 'mmd'\) but got 'rbf'"),
        (dict(gamma=0.0), ValueError, 'expected gamma > 0 but got 0.0'),
        (dict(gamma='mean'), ValueError, r"expected gamma in \('median',\) but got 'mean'"),
        (dict(gamma=None), TypeError, 'expected gamma to be a number but got None'),
        (dict(order=0), ValueError, 'expected order >= 1 with the gaussian kernel, or None, but got 0'),
        (dict(order=2.0), ValueError, 'expected order >= 1 with the gaussian kernel, or None, but got 2.0'),
        (dict(order=2, kernel='mmd'), ValueError, "but got 2 with 'mmd'"),
    ],
    ids=str,
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=f'correlation_congruence: .*{message}|{message}'):
        correlation_congruence(*random_case(), **settings)


def test_no_second_derivative():
    student, teacher = random_case()
    loss = correlation_congruence(student.requires_grad_(), teacher)
    with pytest.raises(
        RuntimeError, match=r'correlation_congruence: expected a first-order backward but got create_graph'
    ):
        torch.autograd.grad(loss, student, create_graph=True)


def test_samples_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r'correlation_congruence: expected student and teacher of shape \(N, ...\)'):
        correlation_congruence(torch.zeros(3, 2), torch.zeros(4, 2))


def test_parts_of_the_rows_add_up():
    for settings in KERNELS:
        student, teacher = random_case()
        student.requires_grad_()
        whole = correlation_congruence(student, teacher, **settings)
        parts = sum(
            correlation_congruence(student, teacher, rows=rows, **settings)
            for rows in (slice(0, 1), slice(1, 1), slice(1, 6))
        )
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
        gradients = [torch.autograd.grad(loss, student)[0] for loss in (parts, whole)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
