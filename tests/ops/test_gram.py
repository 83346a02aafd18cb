"""loss_of_gram against autograd of the same function of the inner products."""

import pytest
import torch

from mmkd_ext.ops.gram import GramSlope, loss_of_gram


def closed_and_automatic(rows, symmetric):
    """The sum of A * (x x^T) + b * |x|^2 over chosen rows, both ways."""
    x = torch.randn(5, 2, 2, dtype=torch.float64, requires_grad=True)
    slope_RN = torch.randn(len(range(*(rows or slice(None)).indices(5))), 5, dtype=torch.float64)
    if symmetric:
        slope_RN = slope_RN + slope_RN.T
    length_slope_N = torch.randn(5, dtype=torch.float64)
    x_ND = x.flatten(1)
    expected = (slope_RN * (x_ND[rows or slice(None)] @ x_ND.T)).sum() + length_slope_N @ x_ND.square().sum(dim=1)
    slope = GramSlope(x_ND.detach(), slope_RN, length_slope_N, rows, symmetric)
    return loss_of_gram('test', x, expected.detach(), slope), expected, x


@pytest.mark.parametrize(
    ('rows', 'symmetric'), [(None, False), (None, True), (slice(1, 3), False), (slice(2, 2), False)], ids=str
)
def test_autograd(rows, symmetric):
    loss, expected, x = closed_and_automatic(rows, symmetric)
    assert loss == expected
    gradients = [torch.autograd.grad(3 * value, x)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_backward_twice_over_one_graph():
    loss, _, x = closed_and_automatic(None, False)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, x)[0], first)


def test_no_second_derivative():
    loss, _, x = closed_and_automatic(None, False)
    with pytest.raises(RuntimeError, match=r'test: expected a first-order backward but got create_graph=True'):
        torch.autograd.grad(loss, x, create_graph=True)
