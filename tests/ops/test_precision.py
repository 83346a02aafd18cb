"""What is computed once and that nothing outlives the block; what is computed in full precision."""

import gc
import inspect
import weakref

import pytest
import torch

from mmkd_ext.functional import correlation_congruence, rkd_angle, rkd_distance
from mmkd_ext.ops import geometry as distances
from mmkd_ext.ops.arguments import full_precision, once, products_are_exact, sharing


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, x, factor=1):
        self.calls += 1
        return factor * x


def test_the_same_memory_once():
    double, x = Counter(), torch.randn(4, 6)
    with sharing():
        first = once(double, x)
        for same in (x, x.detach(), x.view(4, 6), x[:]):
            assert once(double, same) is first
    assert double.calls == 1


@pytest.mark.parametrize(
    'other', [lambda x: x.clone(), lambda x: x[1:], lambda x: x.T, lambda x: x.view(6, 4), lambda x: x.add_(1)]
)
def test_other_numbers_again(other):
    double, x = Counter(), torch.randn(4, 6)
    with sharing():
        once(double, x)
        once(double, other(x))
    assert double.calls == 2


def test_other_settings_and_other_graphs_again():
    double, x = Counter(), torch.randn(4, requires_grad=True)
    with sharing():
        results = [once(double, x), once(double, x, 2), once(double, x.view(4)), once(double, x.detach())]
    assert double.calls == 4
    assert torch.equal(results[1], 2 * x)
    assert [result.requires_grad for result in results] == [True, True, True, False]


def test_without_gradients_and_with_them():
    """A statistic under ``no_grad`` takes no gradient from the loss after it."""
    double, x = Counter(), torch.randn(4, requires_grad=True)
    with sharing():
        with torch.no_grad():
            assert not once(double, x).requires_grad
        assert once(double, x).requires_grad


def test_half_precision_features_keep_their_gradient():
    student, teacher = torch.randn(6, 4, dtype=torch.bfloat16, requires_grad=True), torch.randn(6, 4)
    with sharing():
        with torch.no_grad():
            weight = 1 / (1 + correlation_congruence(student, teacher))
        (weight * correlation_congruence(student, teacher)).backward()
    assert student.grad.abs().sum() > 0


def test_tensors_of_inference_mode_are_not_shared():
    """They have no version, by which a change in place would show."""
    double = Counter()
    with torch.inference_mode():
        x = torch.randn(4)
    with sharing():
        once(double, x)
        once(double, x)
    assert double.calls == 2


def test_nothing_is_shared_outside_and_between_blocks():
    double, x = Counter(), torch.randn(4)
    once(double, x)
    with sharing():
        once(double, x)
        with sharing():
            once(double, x)
        once(double, x)
    once(double, x)
    assert double.calls == 4


def test_memory_is_not_given_to_another_tensor_and_freed_in_the_end():
    with sharing():
        # Without a reference the second tensor would get the address of the first.
        results = [once(Counter(), torch.full((1000,), value)) for value in (1.0, 2.0)]
        assert [float(result[0]) for result in results] == [1.0, 2.0]
        x = torch.randn(4, requires_grad=True)
        kept = weakref.ref(once(Counter(), x))
        del results
    gc.collect()
    assert kept() is None


def losses_and_gradient(student, teacher):
    leaf = student.clone().requires_grad_()
    losses = rkd_distance(leaf, teacher), rkd_angle(leaf, teacher)
    sum(losses).backward()
    return [*(loss.detach() for loss in losses), leaf.grad]


@pytest.fixture
def measured(monkeypatch):
    """Dtypes of all batches that were measured."""
    dtypes, measure = [], distances._measure

    def record(x_ND, dtype, bounds):
        dtypes.append(dtype)
        return measure(x_ND, dtype, bounds)

    monkeypatch.setattr(distances, '_measure', record)
    return dtypes


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize('shape', [(12, 5), (12, 4, 3, 2)], ids=str)
def test_losses_of_one_tap_measure_it_once(measured, dtype, shape):
    student, teacher = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    expected = losses_and_gradient(student, teacher)
    assert len(measured) == 4
    with sharing():
        found = losses_and_gradient(student, teacher)
    assert len(measured) == 6
    assert all(torch.equal(x, y) for x, y in zip(found[:2], expected[:2], strict=True))
    # Of half precision features the shared copy adds up gradients in float32, before they are rounded.
    rtol = 2e-2 if dtype == torch.bfloat16 else 0
    assert (found[2] - expected[2]).float().norm() <= rtol * expected[2].float().norm()


def test_a_batch_that_float32_does_not_resolve_is_found_out_once(measured):
    student, teacher = torch.randn(12, 5), torch.randn(12, 5)
    student[1] = student[0] + 1e-5
    with sharing():
        losses_and_gradient(student, teacher)
    assert measured == [torch.float32, torch.float64, torch.float64]


def test_a_compiled_loss_shares_with_nobody(measured):
    student, teacher = torch.randn(12, 5, requires_grad=True), torch.randn(12, 5)
    compiled = torch.compile(rkd_distance, backend='aot_eager')
    with sharing():
        assert torch.equal(compiled(student, teacher), rkd_distance(student, teacher))
    assert len(measured) == 4


# --------------------------------------------------------------------------------------------------
# The island of full precision.


@full_precision
def product(a, b, *, flip=False):
    """Multiply."""
    return b @ a if flip else a @ b


def test_precision_inside_autocast():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        expected = torch.float64 if dtype == torch.float64 else torch.float32
        a, b = torch.randn(2, 3, 3, dtype=dtype).requires_grad_().unbind()
        with torch.autocast('cpu', torch.bfloat16):
            result = product(a, b=b, flip=True)
        assert result.dtype == expected
        torch.testing.assert_close(result, b.to(expected) @ a.to(expected))
        assert torch.autograd.grad(result.sum(), a)[0].dtype == dtype


def test_signature_survives():
    assert list(inspect.signature(product).parameters) == ['a', 'b', 'flip']
    assert product.__doc__ == 'Multiply.'


def test_no_tensor():
    with pytest.raises(TypeError, match=r'^product: .*tensors .* none'):
        product([1.0], [2.0])


@pytest.fixture
def own_precision():
    before = torch.backends.mkldnn.matmul.fp32_precision, torch.get_float32_matmul_precision()
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before[0]
    torch.backends.cuda.matmul.fp32_precision = before[0]
    torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize('precision', ['medium', 'high'])
def test_shorter_products_are_not_exact(own_precision, precision):
    assert products_are_exact()
    torch.set_float32_matmul_precision(precision)
    assert not products_are_exact()


def test_precision_set_by_the_new_interface(own_precision):
    torch.backends.cuda.matmul.fp32_precision = 'tf32'
    assert not products_are_exact()
