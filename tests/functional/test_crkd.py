"""class_relation_kd against the official code's outputs, loops in float64 for every variant, and its invariances."""

import itertools
import math

import numpy as np
import pytest
import torch

from mmkd_ext.functional import class_relation_kd

F64 = {'rtol': 1e-9, 'atol': 1e-12}
F32 = {'rtol': 1e-5, 'atol': 1e-6}
CASES = ['mix5_5', 'mix7_20', 'all_unlab', 'one_unlab', 'T1_tau.1', 'V1_H1']
PAPER = {'divergence': 'kl', 'scale_by_squared_temperature': False, 'weight_mean': 'per_view_head'}


def looped(
    student,
    teacher,
    *,
    temperature=0.1,
    kd_temperature=4.0,
    divergence='ce',
    weight='normalized',
    weight_temperature=None,
    detach_weight=False,
    scale_by_squared_temperature=True,
    weight_mean='joint',
):
    """The formula sample by sample, with plain softmax and log; a tensor only so that autograd can follow."""
    views, heads, rows, _ = student.shape
    known = teacher.shape[-1]
    softness = temperature * kd_temperature
    eta, distance = {}, {}
    for v, h, i in itertools.product(range(views), range(heads), range(rows)):
        p = torch.softmax(teacher[v, h % teacher.shape[1], i] / softness, -1)
        q = torch.softmax(student[v, h, i, :known] / softness, -1)
        distance[v, h, i] = -(p * q.log()).sum() + ((p * p.log()).sum() if divergence == 'kl' else 0)
        mass = torch.softmax(student[v, h, i] / (weight_temperature or softness), -1)[:known].sum()
        eta[v, h, i] = mass.detach() if detach_weight else mass
    losses = []
    for h in range(heads):
        total = 0
        for v, i in itertools.product(range(views), range(rows)):
            group = list(eta.values()) if weight_mean == 'joint' else [eta[v, h, j] for j in range(rows)]
            g = eta[v, h, i] * len(group) / sum(group) if weight == 'normalized' else 1.0
            total = total + g * distance[v, h, i] * (kd_temperature**2 if scale_by_squared_temperature else 1.0)
        losses.append(total / (views * rows))
    return torch.stack(losses)


def random_case(views=2, heads=3, rows=4, known=3, novel=2, teacher_heads=1):
    """Cosines, as the heads give them."""
    student = torch.rand(views, heads, rows, known + novel, dtype=torch.float64) * 2 - 1
    return student, torch.rand(views, teacher_heads, rows, known, dtype=torch.float64) * 2 - 1


def official_case(vectors, case, dtype):
    rows = ~torch.from_numpy(vectors[f'{case}_mask_lab'])
    student = torch.from_numpy(vectors[f'{case}_{dtype}_new_logits']).requires_grad_()
    teacher = torch.from_numpy(vectors[f'{case}_{dtype}_old_logits'])
    settings = {'temperature': float(vectors[f'{case}_tau']), 'kd_temperature': float(vectors[f'{case}_T'])}
    return student, student[:, :, rows], teacher[:, :, rows], settings


@pytest.mark.parametrize('case', CASES)
def test_official(golden, case):
    vectors = golden('crkd_kd')
    for dtype in ['f64', 'f32']:
        for prefix in ['', 'noweight_']:
            leaf, student, teacher, settings = official_case(vectors, case, dtype)
            loss = class_relation_kd(student, teacher, weight='none' if prefix else 'normalized', **settings)
            (gradient,) = torch.autograd.grad(loss.mean(), leaf)
            tolerance = F64 if dtype == 'f64' else F32
            key = f'{case}_{dtype}_{prefix}'
            torch.testing.assert_close(loss, torch.from_numpy(vectors[f'{key}loss_per_head']), **tolerance)
            torch.testing.assert_close(gradient, torch.from_numpy(vectors[f'{key}grad_new_of_mean']), **tolerance)


@pytest.mark.parametrize('case', CASES)
def test_official_gradient_of_each_head(golden, case):
    vectors = golden('crkd_kd')
    for dtype in ['f64', 'f32']:
        leaf, student, teacher, settings = official_case(vectors, case, dtype)
        loss = class_relation_kd(student, teacher, **settings)
        (gradient,) = torch.autograd.grad((loss * torch.from_numpy(vectors[f'{case}_head_w'])).sum(), leaf)
        expected = torch.from_numpy(vectors[f'{case}_{dtype}_grad_new_of_weighted_heads'])
        torch.testing.assert_close(gradient, expected, **(F64 if dtype == 'f64' else F32))


def test_right_where_official_is_nan(golden):
    vectors = golden('crkd_kd')
    for dtype in ['f64', 'f32']:
        assert np.isnan(vectors[f'huge_logits_{dtype}_loss_mean'])
        leaf, student, teacher, settings = official_case(vectors, 'huge_logits', dtype)
        loss = class_relation_kd(student, teacher, **settings)
        (gradient,) = torch.autograd.grad(loss.mean(), leaf)
        torch.testing.assert_close(loss.double(), _cross_entropy_in_logarithms(student.detach(), teacher), **F32)
        assert gradient.isfinite().all()


def _cross_entropy_in_logarithms(student, teacher, softness=0.4, scale=16.0):
    """Official variant, joint mean, on Python floats and logarithms throughout."""

    def log_sum_exp(values):
        top = max(values)
        return top + math.log(math.fsum(math.exp(value - top) for value in values))

    views, heads, rows, _ = student.shape
    known = teacher.shape[-1]
    log_eta, distance = {}, {}
    for index in itertools.product(range(views), range(heads), range(rows)):
        s = [value / softness for value in student[index].double().tolist()]
        t = [value / softness for value in teacher[index].double().tolist()]
        log_eta[index] = log_sum_exp(s[:known]) - log_sum_exp(s)
        distance[index] = math.fsum(
            math.exp(tk - log_sum_exp(t)) * (log_sum_exp(s[:known]) - sk) for tk, sk in zip(t, s[:known], strict=True)
        )
    log_mean = log_sum_exp(list(log_eta.values())) - math.log(len(log_eta))
    per_head = [
        math.fsum(math.exp(log_eta[i] - log_mean) * distance[i] for i in distance if i[1] == h) for h in range(heads)
    ]
    return scale * torch.tensor(per_head, dtype=torch.float64) / (views * rows)


def test_no_unlabelled_row_is_a_differentiable_zero(golden):
    vectors = golden('crkd_kd')
    for dtype in ['f64', 'f32']:
        assert np.isnan(vectors[f'all_lab_empty_{dtype}_loss_mean'])
        for weight_mean in ('joint', 'per_view_head'):
            leaf, student, teacher, settings = official_case(vectors, 'all_lab_empty', dtype)
            loss = class_relation_kd(student, teacher, weight_mean=weight_mean, **settings)
            loss.mean().backward()
            assert loss.shape == (4,)
            assert torch.equal(loss, torch.zeros_like(loss))
            assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, 11.8236398328538),
        ({'divergence': 'kl'}, 1.64144840505752),
        ({**PAPER, 'weight_temperature': 0.1}, 0.0986908766130449),
    ],
    ids=['official', 'kl', 'paper'],
)
def test_worked_example(settings, expected):
    """Two unlabelled rows worked out in 40 decimal digits."""
    student = torch.tensor([[[[0.4, 0.0, -0.2], [0.1, 0.6, 0.2]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[0.2, 0.3], [0.0, 0.4]]]], dtype=torch.float64)
    loss = class_relation_kd(student, teacher, **settings)
    torch.testing.assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    'settings',
    [
        {'temperature': 0.3},
        {'kd_temperature': 1.5},
        {'divergence': 'kl'},
        {'weight': 'none'},
        {'weight_temperature': 0.1},
        {'detach_weight': True},
        {'scale_by_squared_temperature': False},
        {'weight_mean': 'per_view_head'},
        {**PAPER, 'weight_temperature': 0.1},
        {'divergence': 'kl', 'detach_weight': True, 'weight_mean': 'per_view_head', 'weight_temperature': 0.2},
    ],
    ids=lambda settings: '-'.join(settings),
)
def test_loops(settings):
    for teacher_heads in [1, 3]:
        student, teacher = random_case(teacher_heads=teacher_heads)
        student.requires_grad_()
        head_weights = torch.rand(3, dtype=torch.float64)
        loss, expected = (function(student, teacher, **settings) for function in (class_relation_kd, looped))
        gradient, expected_gradient = (
            torch.autograd.grad(value @ head_weights, student)[0] for value in (loss, expected)
        )
        torch.testing.assert_close(loss, expected, **F64)
        torch.testing.assert_close(gradient, expected_gradient, **F64)


@pytest.mark.parametrize(
    'settings',
    [{}, {'divergence': 'kl'}, {'weight': 'none'}, {'weight_temperature': 0.1}, {'weight_mean': 'per_view_head'}],
    ids=lambda settings: '-'.join(settings) or 'official',
)
def test_gradcheck(settings):
    student, teacher = random_case(rows=2)
    torch.autograd.gradcheck(lambda x: class_relation_kd(x, teacher, **settings), student.requires_grad_())


def test_novel_logits_are_reached_through_the_weight_alone():
    student, teacher = random_case()
    for settings, reached in (({}, True), ({'detach_weight': True}, False), ({'weight': 'none'}, False)):
        leaf = student.clone().requires_grad_()
        class_relation_kd(leaf, teacher, **settings).mean().backward()
        assert bool(leaf.grad[..., 3:].any()) is reached
        assert leaf.grad[..., :3].any()


def test_no_gradient_into_teacher():
    student, teacher = random_case()
    teacher.requires_grad_()
    class_relation_kd(student.requires_grad_(), teacher).sum().backward()
    assert teacher.grad is None


def test_no_second_derivative():
    student, teacher = random_case()
    loss = class_relation_kd(student.requires_grad_(), teacher).sum()
    with pytest.raises(RuntimeError, match=r'class_relation_kd: expected a first-order backward but got create_graph'):
        torch.autograd.grad(loss, student, create_graph=True)


def test_compiles_without_a_break():
    student, teacher = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(class_relation_kd, fullgraph=True, backend='eager')
    losses = [function(student.requires_grad_(), teacher) for function in (compiled, class_relation_kd)]
    torch.testing.assert_close(*losses, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), student)[0] for loss in losses), **F64)


def test_invariances():
    student, teacher = random_case(teacher_heads=3)
    result = class_relation_kd(student, teacher)
    rows, heads, known = torch.randperm(4), torch.randperm(3), torch.randperm(3)
    classes = torch.cat([known, torch.tensor([4, 3])])
    torch.testing.assert_close(class_relation_kd(student[:, :, rows], teacher[:, :, rows]), result, **F64)
    torch.testing.assert_close(class_relation_kd(student[:, heads], teacher[:, heads]), result[heads], **F64)
    torch.testing.assert_close(class_relation_kd(student.flip(0), teacher.flip(0)), result, **F64)
    torch.testing.assert_close(class_relation_kd(student[..., classes], teacher[..., known]), result, **F64)
    shifts = torch.randn(2, 2, 3, 4, 1, dtype=torch.float64)
    torch.testing.assert_close(class_relation_kd(student + shifts[0], teacher + shifts[1]), result, **F64)


def test_a_constant_added_to_all_logits_changes_nothing():
    """Small logits go into exponentials as they are; of large ones the largest is subtracted first."""
    for dtype in [torch.float64, torch.float32]:
        student, teacher = (x.to(dtype) for x in random_case())
        results = []
        for constant in (0.0, 50.0):
            leaf = student.clone().requires_grad_()
            loss = class_relation_kd(leaf + constant, teacher)
            results.append((loss, torch.autograd.grad(loss.sum(), leaf)[0]))
        tolerance = {'rtol': 1e-10, 'atol': 1e-12} if dtype == torch.float64 else {'rtol': 1e-3, 'atol': 1e-5}
        torch.testing.assert_close(*results, **tolerance)


def test_kl_is_zero_where_student_agrees_and_ce_is_the_entropy():
    student, teacher = random_case(teacher_heads=3)
    student[..., :3] = teacher
    assert class_relation_kd(student, teacher, divergence='kl').abs().max() < 1e-13
    entropy_VHU = torch.distributions.Categorical(logits=teacher / 0.4).entropy()
    expected = 16 * entropy_VHU.mean(dim=(0, 2))
    torch.testing.assert_close(class_relation_kd(student, teacher, weight='none'), expected, **F64)


@pytest.mark.parametrize('weight_mean', ['joint', 'per_view_head'])
def test_one_sample_with_vanishing_known_mass(weight_mean):
    """Known classes so unlikely that their mass is 0 in float32; its ratio to its own mean is still 1."""
    student = torch.tensor([[[[0.2, 0.1, 1e3]]]])
    teacher = torch.tensor([[[[0.5, -0.5]]]])
    loss = class_relation_kd(student, teacher, weight_mean=weight_mean)
    torch.testing.assert_close(loss, class_relation_kd(student, teacher, weight='none'))


def test_all_classes_known_makes_weights_one():
    student, teacher = random_case(novel=0)
    torch.testing.assert_close(
        class_relation_kd(student, teacher), class_relation_kd(student, teacher, weight='none'), **F64
    )


def test_finite_and_float32_under_autocast():
    for scale in [1.0, 1e4]:
        for dtype in [torch.float16, torch.bfloat16, torch.float32]:
            student, teacher = ((x * scale).to(dtype) for x in random_case(teacher_heads=3))
            student.requires_grad_()
            with torch.autocast('cpu', torch.bfloat16):
                loss = class_relation_kd(student, teacher)
            loss.mean().backward()
            assert loss.dtype == torch.float32
            assert student.grad.dtype == dtype
            assert student.grad.isfinite().all()
            torch.testing.assert_close(loss.double(), _cross_entropy_in_logarithms(student.detach(), teacher), **F32)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'temperature': 0.0}, r'expected temperature > 0 but got 0.0'),
        ({'kd_temperature': -4.0}, r'expected kd_temperature > 0 but got -4.0'),
        ({'weight_temperature': 0.0}, r'expected weight_temperature > 0 but got 0.0'),
        ({'divergence': 'js'}, r"expected divergence in \('ce', 'kl'\) but got 'js'"),
        ({'weight': True}, r"expected weight in \('normalized', 'none'\) but got True"),
        ({'weight_mean': 'batch'}, r"expected weight_mean in \('joint', 'per_view_head'\) but got 'batch'"),
    ],
)
def test_bad_setting(settings, message):
    with pytest.raises(ValueError, match=f'class_relation_kd: {message}'):
        class_relation_kd(*random_case(), **settings)


def test_teacher_does_not_fit():
    for shape in [(1, 1, 4, 3), (2, 2, 4, 3), (2, 1, 5, 3), (2, 1, 4, 6), (2, 1, 4, 0)]:
        message = (
            r'expected teacher of shape \(V=2, H=3 or 1, U=4, K<=5\) but got .*; feed both networks the same crops'
        )
        with pytest.raises(ValueError, match=message):
            class_relation_kd(random_case()[0], torch.zeros(shape))


def test_missing_dimension():
    student, teacher = random_case()
    with pytest.raises(ValueError, match=r'expected student of shape \(V, H, U, C\) but got \(3, 4, 5\)'):
        class_relation_kd(student[0], teacher)
    with pytest.raises(ValueError, match=r'expected teacher of shape \(V, H, U, K\) but got \(1, 4, 3\)'):
        class_relation_kd(student, teacher[0])
