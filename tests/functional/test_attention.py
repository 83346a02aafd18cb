"""attention_transfer against the official code's values, loops in float64 and its invariances."""

import math

import pytest
import torch

from mmkd_ext.functional import attention_transfer


def looped(student, teacher):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        maps = []
        for x in (s, t):
            activity = [math.fsum(v * v for v in position) / len(position) for position in x.flatten(1).T.tolist()]
            length = math.sqrt(math.fsum(a * a for a in activity))
            maps.append([a / length for a in activity])
        total += sum((a - b) ** 2 for a, b in zip(*maps, strict=True))
    return total / (len(student) * student.shape[2] * student.shape[3])


def random_case():
    return torch.randn(3, 4, 2, 5, dtype=torch.float64), torch.randn(3, 6, 2, 5, dtype=torch.float64)


@pytest.mark.parametrize('case', ['at_B3_zero0', 'at_B3_zero1', 'at_B8_zero0', 'at_B8_zero1'])
def test_official_values_and_gradients(golden, case):
    vectors = golden('rkd_at_fitnet')
    for dtype, rtol, atol in (('f64', 1e-9, 1e-12), ('f32', 1e-5, 1e-6)):
        student, teacher, loss, grad = (
            torch.from_numpy(vectors[f'{case}_{dtype}_{name}']) for name in ('student', 'teacher', 'loss', 'grad')
        )
        result = attention_transfer(student.requires_grad_(), teacher)
        result.backward()
        torch.testing.assert_close(result, loss, rtol=rtol, atol=atol)
        torch.testing.assert_close(student.grad, grad, rtol=rtol, atol=atol)


def test_loops_and_gradcheck():
    student, teacher = random_case()
    assert attention_transfer(student, teacher).item() == pytest.approx(looped(student, teacher), rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: attention_transfer(s, teacher), (student.requires_grad_(),))


def test_blind_to_order_and_sign_of_channels_and_to_one_scale_per_image():
    student, teacher = random_case()
    changed = torch.tensor([1e-3, 1.0, 1e9], dtype=torch.float64).view(3, 1, 1, 1) * -student[:, [2, 0, 3, 1]]
    torch.testing.assert_close(attention_transfer(changed, teacher), attention_transfer(student, teacher))


def test_permutation_invariant():
    student, teacher = random_case()
    torch.testing.assert_close(
        attention_transfer(student[[2, 0, 1]], teacher[[2, 0, 1]]), attention_transfer(student, teacher)
    )


def test_zero_for_an_equal_teacher():
    _, teacher = random_case()
    student = teacher.clone().requires_grad_()
    loss = attention_transfer(student, teacher)
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_larger_maps_are_pooled():
    student = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    teacher = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    # The activity of a cell of 2 x 2 positions is that of 4 times as many channels at one position.
    cells = torch.nn.functional.pixel_unshuffle(student, 2)
    torch.testing.assert_close(attention_transfer(student, teacher), attention_transfer(cells, teacher))
    torch.testing.assert_close(attention_transfer(teacher, student), attention_transfer(teacher, cells))


def test_no_gradient_into_teacher():
    student, teacher = random_case()
    attention_transfer(student.requires_grad_(), teacher.requires_grad_()).backward()
    assert teacher.grad is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(dtype):
    student, teacher = (x.to(dtype) for x in random_case())
    with torch.autocast('cpu', torch.bfloat16):
        loss = attention_transfer(student, teacher)
    torch.testing.assert_close(loss, attention_transfer(student.float(), teacher.float()), rtol=0, atol=0)


def test_activations_whose_squares_leave_float32_are_finite():
    student, teacher = (x.float() for x in random_case())
    torch.testing.assert_close(attention_transfer(1e30 * student, teacher), attention_transfer(student, teacher))


def test_empty_batch_is_a_differentiable_zero():
    student = torch.zeros(0, 2, 3, 3, requires_grad=True)
    loss = attention_transfer(student, torch.zeros(0, 2, 3, 3))
    loss.backward()
    assert loss == 0


def test_compiles_without_a_break():
    student, teacher = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(attention_transfer, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(student, teacher), attention_transfer(student, teacher))


def test_bad_shape():
    with pytest.raises(
        ValueError, match=r'attention_transfer: expected student of shape \(N, C, Y, X\) but got \(3, 2\)'
    ):
        attention_transfer(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r'attention_transfer: expected student and teacher of shape \(N, ...\)'):
        attention_transfer(torch.zeros(3, 2, 1, 1), torch.zeros(4, 2, 1, 1))
