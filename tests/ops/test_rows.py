"""Rows: lengths, distances, and the gradient where there is no direction."""

import torch

from mmkd_ext.ops.distances import inner_products, squared_distances, unit_rows


def test_rows_keep_their_direction_and_get_length_one():
    x = torch.randn(5, 7, dtype=torch.float64) * torch.logspace(-5, 9, 5, dtype=torch.float64)[:, None]
    unit = unit_rows(x)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-14, atol=0)
    torch.testing.assert_close(unit * x.norm(dim=1, keepdim=True), x, rtol=1e-14, atol=0)


def test_gradient_is_that_of_normalize_on_ordinary_rows():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_rows, (x,))
    torch.testing.assert_close(unit_rows(x), torch.nn.functional.normalize(x))


def test_zero_row_stays_and_passes_its_gradient_as_it_is():
    x = torch.zeros(2, 3, requires_grad=True)
    unit = unit_rows(x)
    unit.backward(torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.0]]))
    assert (unit == 0).all()
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.0]]))


def test_no_gradient_is_multiplied_by_more_than_a_million():
    x = torch.tensor([[1.01e-6, 0.0], [0.99e-6, 0.0]], requires_grad=True)
    unit_rows(x).backward(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert 0.9e6 < x.grad[0, 1] < 1e6
    assert x.grad[1, 1] == 1


def test_squared_distances():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(squared_distances(x), torch.cdist(x, x).square())
    assert torch.autograd.gradcheck(squared_distances, (x,))


def test_squared_distances_far_from_the_origin():
    x = torch.randn(5, 3)
    far = (x + 1000).double()
    torch.testing.assert_close(
        squared_distances(x + 1000).double(), torch.cdist(far, far).square(), rtol=1e-4, atol=1e-6
    )
    assert (squared_distances(x).diagonal() == 0).all()


def test_some_rows_are_those_of_all():
    x = 100 + torch.randn(7, 3, dtype=torch.float64)
    rows = slice(2, 5)
    torch.testing.assert_close(squared_distances(x, rows), squared_distances(x)[rows], rtol=1e-12, atol=1e-12)
    for chosen in (rows, slice(3, 3), None):
        product, own_square, square = inner_products(x, chosen)
        torch.testing.assert_close(product, (x @ x.T)[chosen or slice(None)])
        torch.testing.assert_close(own_square, (x**2).sum(dim=1, keepdim=True)[chosen or slice(None)])
        torch.testing.assert_close(square, (x**2).sum(dim=1))
