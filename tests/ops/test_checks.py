"""The checks name the speaker, the argument and the value; the precision island does what it says."""

import inspect
import math

import pytest
import torch

from mmkd_ext.ops.checks import check_choice, check_dims, check_not_negative, check_pair, check_positive
from mmkd_ext.ops.precision import full_precision, products_are_exact


def test_good_values_pass():
    check_positive('who', a=1, b=0.5)
    check_not_negative('who', a=0, b=0.5)
    check_choice('who', ('x', 'y'), word='x')
    check_dims('who', 'N D', x=torch.zeros(2, 3), y=torch.zeros(0, 1))
    check_pair('who', torch.zeros(2, 3), torch.full((2, 4, 4), torch.inf))


@pytest.mark.parametrize('value', [0, -1.0, math.nan, math.inf])
def test_not_positive(value):
    with pytest.raises(ValueError, match=f'^who: expected size > 0 but got {value}; use a positive finite number$'):
        check_positive('who', size=value)


@pytest.mark.parametrize('value', [-1.0, math.nan, math.inf])
def test_negative(value):
    with pytest.raises(ValueError, match=f'^who: expected size >= 0 but got {value}; use a finite number'):
        check_not_negative('who', size=value)


@pytest.mark.parametrize('check', [check_positive, check_not_negative])
@pytest.mark.parametrize('value', ['1', None, True])
def test_not_a_number(check, value):
    with pytest.raises(TypeError, match=f'^who: expected size to be a number but got {value!r}; write it as a float$'):
        check('who', size=value)


def test_not_a_choice():
    with pytest.raises(ValueError, match=r"^who: expected word in \('x', 'y'\) but got 'z'; use one of these words$"):
        check_choice('who', ('x', 'y'), word='z')


def test_wrong_dims():
    with pytest.raises(
        ValueError, match=r'^who: expected y of shape \(N, D\) but got \(3,\); add or remove dimensions$'
    ):
        check_dims('who', 'N D', x=torch.zeros(2, 3), y=torch.zeros(3))


@pytest.mark.parametrize('teacher', [torch.zeros(4, 2), torch.zeros(3)])
def test_samples_that_do_not_pair_up(teacher):
    with pytest.raises(ValueError, match=r'^who: expected student and teacher of shape \(N, ...\) with the same N but'):
        check_pair('who', torch.zeros(3, 2), teacher)


def test_nan_is_named():
    bad = torch.tensor([[1.0, math.nan], [math.nan, 0.0]])
    with pytest.raises(ValueError, match=r'^who: expected numbers in teacher but got NaN in 2 of 4 places'):
        check_pair('who', torch.zeros(2, 2), bad)
    with pytest.raises(ValueError, match=r'^who: expected numbers in student but got NaN in 2 of 4 places'):
        check_pair('who', bad, bad)


def test_values_are_looked_at_on_the_cpu_only():
    check_pair('who', *torch.full((2, 3, 2), math.nan, device='meta'))


@full_precision
def product(a, b, *, flip=False):
    """Multiply."""
    return b @ a if flip else a @ b


@pytest.mark.parametrize(
    ('dtype', 'expected'),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_precision_inside_autocast(dtype, expected):
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
    with pytest.raises(TypeError, match=r'^product: expected torch tensors but got none; use torch.as_tensor$'):
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
