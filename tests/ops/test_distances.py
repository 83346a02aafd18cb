"""Lengths and distances against direct differences in float64, their gradients against autograd."""

import numpy as np
import torch

from mmkd_ext.ops.arguments import settled_unit_rows, unit_features, unit_rows
from mmkd_ext.ops.geometry import inner_products, pairwise, position_gradient, squared_distances


def direct(x_ND):
    return (x_ND.double()[:, None] - x_ND.double()).square().sum(dim=-1)


def near_duplicates(spread, num_samples=24, dims=32):
    x_ND = torch.randn(num_samples, dims)
    x_ND[1::2] = x_ND[::2] + spread * torch.randn(num_samples // 2, dims)
    return x_ND


def test_direct_differences():
    for dtype in [torch.float32, torch.float64]:
        for scale in [1e-15, 1.0, 30.0, 1e17]:
            x_ND, y_ND = scale * torch.randn(9, 20, dtype=dtype), torch.randn(9, 6, dtype=dtype)
            points, other = pairwise(x_ND, y_ND)
            rtol = 1e-5 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(
                points.square_RN.double() * points.unit.double() ** 2, direct(x_ND), rtol=rtol, atol=0
            )
            torch.testing.assert_close(
                other.square_RN.double() * other.unit.double() ** 2, direct(y_ND), rtol=rtol, atol=0
            )


def test_offset_of_a_thousand_spreads_costs_no_digit():
    x_ND = 1000 + torch.randn(32, 64)
    points, _ = pairwise(x_ND, x_ND)
    assert points.square_RN.dtype == torch.float32
    torch.testing.assert_close(points.square_RN.double() * points.unit**2, direct(x_ND), rtol=1e-5, atol=0)


def test_what_float32_cannot_resolve_is_redone_in_float64():
    for spread in [1e-2, 1e-3, 1e-5]:
        for in_student in [True, False]:
            x_ND, y_ND = near_duplicates(spread), torch.randn(24, 32)
            pair = pairwise(x_ND, y_ND) if in_student else pairwise(y_ND, x_ND)[::-1]
            assert all(points.square_RN.dtype == torch.float64 for points in pair)
            torch.testing.assert_close(pair[0].square_RN * pair[0].unit ** 2, direct(x_ND), rtol=1e-4, atol=0)


def test_shorter_products_are_not_trusted():
    """A user may allow products in bfloat16; distances are then those of float64."""
    x_ND, y_ND = torch.randn(64, 128), torch.randn(64, 32)
    torch.set_float32_matmul_precision('medium')
    try:
        points, _ = pairwise(x_ND, y_ND)
    finally:
        torch.set_float32_matmul_precision('highest')
    torch.testing.assert_close(points.square_RN * points.unit**2, direct(x_ND), rtol=1e-6, atol=0)


def test_float64_far_beyond_float32():
    x_ND = torch.randn(9, 5, dtype=torch.float64)
    points, _ = pairwise(1e300 * x_ND, x_ND)
    torch.testing.assert_close(points.square_RN * (points.unit / 1e300) ** 2, direct(x_ND), rtol=1e-12, atol=0)


def test_zero_only_for_points_that_coincide():
    x_ND = near_duplicates(1e-6)
    x_ND[3] = x_ND[0]
    points, _ = pairwise(x_ND, x_ND)
    is_zero_NN = torch.eye(24, dtype=torch.bool)
    is_zero_NN[0, 3] = is_zero_NN[3, 0] = True
    assert torch.equal(points.square_RN == 0, is_zero_NN)
    assert (points.square_RN >= 0).all()


def test_collapsed_batch_has_no_distances():
    for x in [torch.zeros(5, 3), torch.full((5, 3), 7e30), torch.full((5, 3), 1e-40)]:
        points, _ = pairwise(x, torch.randn(5, 3))
        assert torch.equal(points.square_RN, torch.zeros(5, 5, dtype=torch.float64))


def test_result_is_symmetric_and_centred():
    points, _ = pairwise(5 + torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 4))
    torch.testing.assert_close(points.square_RN, points.square_RN.T, rtol=1e-12, atol=0)
    torch.testing.assert_close(points.x_ND.mean(dim=0), torch.zeros(3, dtype=torch.float64))


def test_position_gradient_is_autograd_of_squared_distances():
    x_ND = 50 * torch.randn(6, 4, dtype=torch.float64)
    weight_NN = torch.randn(6, 6, dtype=torch.float64)
    leaf_ND = x_ND.clone().requires_grad_()
    (weight_NN * (leaf_ND[:, None] - leaf_ND).square().sum(dim=-1)).sum().backward()
    points, _ = pairwise(x_ND, x_ND)
    # In the unit of the points the weighted sum is smaller by unit^2.
    slope_NN = (weight_NN + weight_NN.T) * points.unit**2
    torch.testing.assert_close(position_gradient(points, slope_NN), leaf_ND.grad, rtol=1e-10, atol=1e-10)


def test_some_rows_are_those_of_all():
    for rows in [slice(0, 3), slice(3, 9), slice(4, 4)]:
        x_ND, y_ND = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
        x_ND[5] = x_ND[1]
        (some, _), (points, _) = pairwise(x_ND, y_ND, rows), pairwise(x_ND, y_ND)
        torch.testing.assert_close(some.square_RN, points.square_RN[rows], rtol=1e-12, atol=0)
        slope_NN = torch.randn(9, 9, dtype=torch.float64)
        slope_NN += slope_NN.T.clone()
        gradient_ND = position_gradient(some, slope_NN[rows].clone())
        expected_ND = torch.zeros_like(x_ND)
        expected_ND[rows] = position_gradient(points, slope_NN.clone())[rows]
        torch.testing.assert_close(gradient_ND, expected_ND)


def test_rows_that_float32_cannot_resolve_are_redone_in_float64_where_they_are():
    x_ND, y_ND = near_duplicates(1e-3), torch.randn(24, 32)
    x_ND[:12] = torch.randn(12, 32)
    dtypes = [pairwise(x_ND, y_ND, rows)[0].square_RN.dtype for rows in (slice(0, 12), slice(12, 24))]
    assert dtypes == [torch.float32, torch.float64]


# --------------------------------------------------------------------------------------------------
# Vectors of length 1, products, and squared distances that autograd differentiates.


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


def test_some_rows_of_products_are_those_of_all():
    x = 100 + torch.randn(7, 3, dtype=torch.float64)
    rows = slice(2, 5)
    torch.testing.assert_close(squared_distances(x, rows), squared_distances(x)[rows], rtol=1e-12, atol=1e-12)
    for chosen in (rows, slice(3, 3), None):
        product, own_square, square = inner_products(x, chosen)
        torch.testing.assert_close(product, (x @ x.T)[chosen or slice(None)])
        torch.testing.assert_close(own_square, (x**2).sum(dim=1, keepdim=True)[chosen or slice(None)])
        torch.testing.assert_close(square, (x**2).sum(dim=1))


def test_settled_rows_have_length_one_and_a_second_call_changes_no_bit():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        weight = torch.randn(3, 50, 700).to(dtype)
        weight[0, 0] = 0
        unit = settled_unit_rows(weight)
        assert unit.dtype == dtype
        assert torch.equal(settled_unit_rows(unit), unit)
        length = unit.double().norm(dim=-1)
        assert length[0, 0] == 0
        assert (length.flatten()[1:] - 1).abs().max() < 4 * torch.finfo(dtype).eps


def test_both_ways_and_arrays_agree():
    x = torch.randn(9, 5, dtype=torch.float64)
    torch.testing.assert_close(settled_unit_rows(x), unit_rows(x), rtol=1e-15, atol=0)
    np.testing.assert_allclose(unit_features(x.numpy()), unit_rows(x).numpy(), rtol=1e-15)
    assert (unit_features(np.zeros((2, 3), np.float32)) == 0).all()
