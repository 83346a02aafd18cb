"""Distances against direct differences in float64, their gradient against autograd."""

import pytest
import torch

from mmkd_ext.ops.distances import pairwise, position_gradient


def direct(x_ND):
    return (x_ND.double()[:, None] - x_ND.double()).square().sum(dim=-1)


def near_duplicates(spread, num_samples=24, dims=32):
    x_ND = torch.randn(num_samples, dims)
    x_ND[1::2] = x_ND[::2] + spread * torch.randn(num_samples // 2, dims)
    return x_ND


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('scale', [1e-15, 1.0, 30.0, 1e17])
def test_direct_differences(dtype, scale):
    x_ND, y_ND = scale * torch.randn(9, 20, dtype=dtype), torch.randn(9, 6, dtype=dtype)
    points, other = pairwise(x_ND, y_ND)
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(points.square_RN.double() * points.unit.double() ** 2, direct(x_ND), rtol=rtol, atol=0)
    torch.testing.assert_close(other.square_RN.double() * other.unit.double() ** 2, direct(y_ND), rtol=rtol, atol=0)


def test_offset_of_a_thousand_spreads_costs_no_digit():
    x_ND = 1000 + torch.randn(32, 64)
    points, _ = pairwise(x_ND, x_ND)
    assert points.square_RN.dtype == torch.float32
    torch.testing.assert_close(points.square_RN.double() * points.unit**2, direct(x_ND), rtol=1e-5, atol=0)


@pytest.mark.parametrize('spread', [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize('in_student', [True, False])
def test_what_float32_cannot_resolve_is_redone_in_float64(spread, in_student):
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


@pytest.mark.parametrize('x', [torch.zeros(5, 3), torch.full((5, 3), 7e30), torch.full((5, 3), 1e-40)])
def test_collapsed_batch_has_no_distances(x):
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


@pytest.mark.parametrize('rows', [slice(0, 3), slice(3, 9), slice(4, 4)], ids=str)
def test_some_rows_are_those_of_all(rows):
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
