"""RKD against the published formula in plain float64, official vectors, invariances, and what float32 finds hard.

Where numbers matter, in plain torch and with the C kernel; the Triton kernels have a test of their own.
"""

import functools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmkd_ext.functional import rkd_angle, rkd_distance
from mmkd_ext.functional.rkd import _closed_form, angle_sum, distance_sum
from mmkd_ext.ops.geometry import angle_path, pairwise

BOTH = pytest.mark.parametrize('loss', [rkd_distance, rkd_angle])
PLAIN_CASES = [f'plain_B{b}_D{d}' for b in (3, 8, 32) for d in (4, 64)] + [
    f'{kind}_B8_D4' for kind in ('normalised', 'big', 'equal')
]
DUPLICATES = [f'dup_{kind}_B{b}_D{d}' for kind in ('student', 'both') for b in (3, 8, 32) for d in (4, 64)]


@pytest.fixture(params=['torch', 'c'])
def path(request, monkeypatch):
    """How the angles are computed; distances have one way."""
    monkeypatch.setenv('MMKD_KERNELS', 'off' if request.param == 'torch' else 'on')
    if angle_path('cpu') != request.param:
        pytest.skip('needs a C compiler')


def huber(gap, delta):
    return torch.where(gap.abs() <= delta, gap**2 / 2, delta * (gap.abs() - delta / 2))


def published(loss, student, teacher, delta=1.0, left_out=()):
    """Differences of all pairs, relations from them, mean over all tuples.

    The student's edges ``left_out`` have no length and no direction, as those of a sample with itself.
    """
    relations = []
    for x_ND, pairs in ((student, left_out), (teacher, ())):
        is_edge_NN = ~torch.eye(len(x_ND), dtype=torch.bool)
        for i, j in pairs:
            is_edge_NN[i, j] = is_edge_NN[j, i] = False
        difference_NND = x_ND[None] - x_ND[:, None]
        length_NN = torch.where(is_edge_NN, difference_NND.square().sum(dim=-1), 1).sqrt()
        if loss is rkd_distance:
            length_NN = length_NN * is_edge_NN
            relations.append(length_NN / (length_NN.sum() / math.perm(len(x_ND), 2)))
        else:
            unit_NND = difference_NND / length_NN[..., None] * is_edge_NN[..., None]
            relations.append(torch.einsum('jid,jkd->jik', unit_NND, unit_NND))
    return huber(relations[0] - relations[1], delta).mean()


def value_and_gradient(function, student, *args, **kwargs):
    leaf = student.detach().clone().requires_grad_()
    value = function(leaf, *args, **kwargs)
    value.backward()
    return value.detach(), leaf.grad


def random_pair(num_samples=9, dims=(5, 7), dtype=torch.float64):
    return tuple(torch.randn(num_samples, d, dtype=dtype) for d in dims)


def relative(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm())


def golden_case(golden, loss, name):
    archive = golden(loss.__name__)
    return [torch.from_numpy(archive[f'{name}_{part}']) for part in ('student', 'teacher', 'loss', 'grad')]


@BOTH
def test_official_vectors(golden, path, loss):
    for name in [*PLAIN_CASES, 'plain_B2_D4']:
        for dtype, rtol, atol in [('f64', 1e-9, 1e-12), ('f32', 1e-5, 1e-6)]:
            student, teacher, expected, expected_grad = golden_case(golden, loss, f'{name}_{dtype}')
            value, grad = value_and_gradient(loss, student, teacher)
            torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)
            torch.testing.assert_close(grad, expected_grad, rtol=rtol, atol=atol)


def test_distance_of_duplicates_is_that_of_the_official_code_up_to_its_1e_6(golden):
    for name in DUPLICATES:
        student, teacher, expected, expected_grad = golden_case(golden, rkd_distance, f'{name}_f64')
        value, grad = value_and_gradient(rkd_distance, student, teacher)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-7)


def test_angle_of_duplicates_has_the_official_value_and_a_bounded_gradient(golden, path):
    for name in DUPLICATES:
        student, teacher, expected, expected_grad = golden_case(golden, rkd_angle, f'{name}_f64')
        value, grad = value_and_gradient(rkd_angle, student, teacher)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
        assert grad.norm() < 0.1
        if name.startswith('dup_student'):
            assert expected_grad.norm() > 1e7


def test_published_numbers():
    teacher = torch.tensor([[0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    student = torch.tensor([[0], [1], [3]], dtype=torch.float64)
    assert float(rkd_distance(student, teacher)) == pytest.approx(0.0653679727298421, rel=1e-12)
    assert float(rkd_distance(student, teacher, reduction='distinct')) == pytest.approx(0.0980519590947630, rel=1e-12)
    assert float(rkd_angle(student, teacher)) == pytest.approx(0.1296296296296296, rel=1e-12)
    assert float(rkd_angle(student, teacher, reduction='distinct')) == pytest.approx(0.5833333333333333, rel=1e-12)


@BOTH
def test_published_formula(path, loss):
    for delta in [0.05, 1.0, 3.0]:
        for num_samples in [3, 9, 150]:
            student, teacher = random_pair(num_samples)
            value, grad = value_and_gradient(loss, student, teacher, delta=delta)
            expected, expected_grad = value_and_gradient(functools.partial(published, loss), student, teacher, delta)
            torch.testing.assert_close(value, expected, rtol=1e-11, atol=0)
            torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-14)


@BOTH
@pytest.mark.parametrize('delta', [0.1, 1.0])
def test_gradcheck(path, loss, delta):
    student, teacher = random_pair(6, (3, 4))
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, delta=delta), student.requires_grad_())


@BOTH
def test_reductions_differ_by_the_number_of_tuples(loss):
    student, teacher = random_pair(7)
    order = 2 if loss is rkd_distance else 3
    total = loss(student, teacher, reduction='sum')
    torch.testing.assert_close(loss(student, teacher, reduction='official') * 7**order, total)
    torch.testing.assert_close(loss(student, teacher, reduction='distinct') * math.perm(7, order), total)


@BOTH
def test_blind_to_rotation_shift_scale_of_either_and_order_of_both(loss):
    student, teacher = random_pair(9, (5, 5))
    expected = loss(student, teacher)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    order = torch.randperm(9)
    for moved in (lambda x: x @ turn, lambda x: x + 3, lambda x: 1e-3 * x):
        torch.testing.assert_close(loss(moved(student), teacher), expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(loss(student, moved(teacher)), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(student[order], teacher[order]), expected, rtol=1e-12, atol=0)


@BOTH
def test_gradient_neither_scales_nor_shifts_nor_turns(loss):
    student, teacher = random_pair()
    _, grad = value_and_gradient(loss, student, teacher)
    torque = grad.T @ student
    assert abs(float((grad * student).sum())) < 1e-15
    assert grad.sum(dim=0).abs().max() < 1e-15
    torch.testing.assert_close(torque, torque.T, rtol=0, atol=1e-15)


@BOTH
def test_zero_for_a_moved_copy_of_the_teacher(loss):
    teacher = torch.randn(12, 5, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    value, grad = value_and_gradient(loss, 7 * teacher @ turn + 2, teacher)
    assert value < 1e-24
    assert grad.abs().max() < 1e-14


def hard_features(name, num_samples=48, dims=64):
    student, teacher = torch.randn(num_samples, dims), torch.randn(num_samples, dims + 3)
    kind, _, number = name.partition(' ')
    if kind == 'offset':
        student, teacher = student + float(number), teacher + float(number)
    elif kind == 'duplicates':
        student[1::2] = student[::2] + float(number) * torch.randn(num_samples // 2, dims)
    elif kind == 'clusters':
        student = student[:4].repeat(num_samples // 4, 1) + float(number) * student
    return student, teacher


@BOTH
def test_float32_is_as_good_as_float64(path, loss):
    hard = ('duplicates 1e-3', 'duplicates 1e-5', 'clusters 0.03', 'clusters 0.003')
    for name, bound in (('ordinary', 1e-5), ('offset 1000', 1e-5), *((name, 2e-5) for name in hard)):
        student, teacher = hard_features(name)
        value, grad = value_and_gradient(loss, student, teacher)
        expected, expected_grad = value_and_gradient(
            functools.partial(published, loss), student.double(), teacher.double()
        )
        assert value.dtype == grad.dtype == torch.float32
        assert relative(value, expected) < 1e-5
        assert relative(grad, expected_grad) < bound


def gradient_bounds(student, delta):
    """What the docstrings promise for the gradient of each sample."""
    length_NN = torch.cdist(student, student)
    inverse_NN = torch.where(length_NN > 1e-6, 1 / length_NN, 0)
    num_samples = len(student)
    mean = length_NN.sum() / (num_samples * (num_samples - 1))
    return {
        rkd_distance: torch.full((num_samples,), 4 * delta / num_samples) / mean,
        rkd_angle: 4 * delta / num_samples**2 * inverse_NN.sum(dim=1),
    }


@BOTH
def test_gradient_stays_within_its_bound(path, loss):
    for delta in [0.01, 1.0]:
        student, teacher = random_pair(16)
        student[1], student[2] = student[0], student[0] + 1e-3
        _, grad = value_and_gradient(loss, student, teacher, delta=delta)
        assert grad.abs().max() > 0
        assert (grad.norm(dim=1) <= gradient_bounds(student, delta)[loss] * (1 + 1e-9)).all()


@BOTH
def test_duplicates_do_not_push_each_other(path, loss):
    student, teacher = random_pair()
    student[1] = student[0]
    _, grad = value_and_gradient(loss, student, teacher)
    _, expected = value_and_gradient(lambda s: published(loss, s, teacher, left_out=[(0, 1)]), student)
    torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-14)


@BOTH
def test_a_collapsed_student_does_not_look_good(path, loss):
    _, teacher = random_pair()
    value, grad = value_and_gradient(loss, torch.ones(9, 5, dtype=torch.float64), teacher)
    assert value > loss(*random_pair())
    assert not grad.any()


@BOTH
def test_finite_at_any_scale(path, loss):
    for factor in [1e-42, 1e-20, 1e20, 1e37]:
        student, teacher = random_pair(dtype=torch.float32)
        value, grad = value_and_gradient(loss, student * factor, teacher)
        assert value.isfinite()
        assert grad.isfinite().all()


def test_too_few_samples_for_a_tuple():
    for loss, num_samples in [(rkd_distance, 0), (rkd_distance, 1), (rkd_angle, 0), (rkd_angle, 1), (rkd_angle, 2)]:
        value, grad = value_and_gradient(loss, torch.randn(num_samples, 5), torch.randn(num_samples, 6))
        assert value == 0
        assert grad.shape == (num_samples, 5)
        assert not grad.any()


@BOTH
def test_half_input_is_computed_in_float32(loss):
    for dtype in [torch.float16, torch.bfloat16]:
        student, teacher = (x.to(dtype) for x in random_pair(num_samples=20))
        with torch.autocast('cpu', torch.bfloat16):
            value, grad = value_and_gradient(loss, student, teacher)
        expected, expected_grad = value_and_gradient(loss, student.float(), teacher.float())
        assert torch.equal(value, expected)
        assert torch.equal(grad, expected_grad.to(dtype))


@BOTH
def test_maps_are_flattened_and_any_layout_will_do(loss):
    student, teacher = torch.randn(6, 4, 3, 2), torch.randn(6, 5, 2, 2)
    expected = loss(student.flatten(1), teacher.flatten(1))
    assert torch.equal(loss(student.to(memory_format=torch.channels_last), teacher), expected)


@BOTH
def test_no_gradient_into_teacher_and_none_asked_for(loss):
    student, teacher = (x.requires_grad_() for x in random_pair())
    value = loss(student, teacher)
    value.backward()
    assert teacher.grad is None
    with torch.no_grad():
        assert loss(student, teacher) == value


@BOTH
def test_second_derivative_is_refused(loss):
    student, teacher = random_pair()
    value = loss(student.requires_grad_(), teacher)
    with pytest.raises(RuntimeError, match=rf'{loss.__name__}: expected a first-order backward'):
        torch.autograd.grad(value, student, create_graph=True)


@BOTH
def test_compiles_as_one_graph(loss):
    student, teacher = random_pair()
    compiled = torch.compile(lambda s: 2 * loss(s, teacher), backend='aot_eager', fullgraph=True)
    value, grad = value_and_gradient(compiled, student)
    expected, expected_grad = value_and_gradient(lambda s: 2 * loss(s, teacher), student)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)


class _LargestTensor(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *(tensor.untyped_storage().nbytes() // 4 for tensor in tensors)])
        return result


@BOTH
def test_no_tensor_is_larger_than_a_few_pair_matrices(loss):
    num_samples = dims = 512
    # The operator hides from a dispatch mode what happens inside: look at the function that it is made of.
    with _LargestTensor() as largest:
        _closed_form(*random_pair(num_samples, (dims, dims), torch.float32), loss.__name__, 1.0, True, [])
    assert num_samples**2 <= largest.numel <= 4 * num_samples**2


@BOTH
def test_bad_input(loss):
    name = loss.__name__
    with pytest.raises(ValueError, match=rf'{name}: expected student and teacher .* \(3, 2\), \(4, 2\)'):
        loss(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=f'{name}: expected numbers in teacher but got NaN'):
        loss(torch.zeros(3, 2), torch.full((3, 2), math.nan))
    with pytest.raises(ValueError, match=f'{name}: expected numbers in student but got NaN'):
        loss(torch.full((3, 2), math.nan), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=f'{name}: expected delta > 0 but got 0'):
        loss(torch.zeros(3, 2), torch.zeros(3, 2), delta=0)
    with pytest.raises(ValueError, match=f'{name}: expected reduction in .* but got .mean.'):
        loss(torch.zeros(3, 2), torch.zeros(3, 2), reduction='mean')


# --------------------------------------------------------------------------------------------------
# The sums, and in parts.


def features():
    return torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)


def test_distances_and_their_slope():
    student_ND, teacher_ND = features()
    student, teacher = pairwise(student_ND, teacher_ND)
    total, slope_NN = distance_sum(student, teacher, 0.5, with_slope=True)
    square_NN = student.square_RN.clone().fill_diagonal_(1).requires_grad_()
    distance_NN, target_NN = square_NN.sqrt() * (1 - torch.eye(7)), teacher.square_RN.sqrt()
    gap_NN = distance_NN * 42 / distance_NN.sum() - target_NN * 42 / target_NN.sum()
    expected = torch.nn.functional.huber_loss(gap_NN, torch.zeros_like(gap_NN), reduction='sum', delta=0.5)
    expected.backward()
    torch.testing.assert_close(total, expected)
    off_diagonal_NN = ~torch.eye(7, dtype=torch.bool)
    # The slope of both orders of a pair.
    torch.testing.assert_close(slope_NN[off_diagonal_NN], 2 * square_NN.grad[off_diagonal_NN])


def test_angles_and_their_slope_in_parts():
    student, teacher = pairwise(*features())
    whole, slope_NN = angle_sum(student, teacher, 0.5, with_slope=True)
    parts = [angle_sum(student, teacher, 0.5, True, rows) for rows in (slice(0, 2), slice(2, 2), slice(2, 7))]
    torch.testing.assert_close(sum(part for part, _ in parts), whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(sum(slope for _, slope in parts), slope_NN, rtol=1e-12, atol=1e-12)


def test_a_vertex_alone_has_the_angles_at_it():
    student, teacher = pairwise(*features())
    total, slope = angle_sum(student, teacher, 1.0, False, slice(3, 4))
    assert slope is None
    cosines = []
    for square_NN in (student.square_RN, teacher.square_RN):
        arm = square_NN[3]
        cosine = (arm[:, None] + arm - square_NN) / (2 * (arm[:, None] * arm).sqrt())
        cosines.append(cosine.nan_to_num(0, 0, 0))
    torch.testing.assert_close(total, torch.nn.functional.huber_loss(*cosines, reduction='sum'))


def test_gradient_of_the_loss_in_parts():
    student, teacher = features()
    student.requires_grad_()
    whole = rkd_angle(student, teacher)
    parts = sum(rkd_angle(student, teacher, rows=rows) for rows in (slice(0, 5), slice(5, 7)))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (parts, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
