"""Potentials against vectors, determinants and geometry in plain float64."""

import pytest
import torch

from mmkd_ext.functional import analogy_potential, angle_potential, distance_potential, simplex_potential

ORDERS = [(distance_potential, 2), (angle_potential, 3), (analogy_potential, 4)] + [
    (simplex_potential, order) for order in (3, 4, 5, 6)
]


def gram_of(x_ND):
    x_ND = x_ND - x_ND.mean(dim=0)
    return x_ND @ x_ND.T


def unit(x):
    return x / x.norm()


def by_vectors(potential, x_ND, indices):
    points = [x_ND[i] for i in indices]
    if potential is distance_potential:
        return (points[0] - points[1]).norm() / torch.pdist(x_ND).mean()
    if potential is angle_potential:
        return unit(points[0] - points[1]) @ unit(points[2] - points[1])
    if potential is analogy_potential:
        return unit(points[1] - points[0]) @ unit(points[3] - points[2])
    edges = torch.stack([unit(point - points[0]) for point in points[1:]])
    return torch.linalg.det(edges @ edges.T)


def random_case(order, num_samples=8, dims=5):
    x_ND = 3 + torch.randn(num_samples, dims, dtype=torch.float64)
    tuples = torch.stack([torch.randperm(num_samples)[:order] for _ in range(12)])
    return x_ND, tuples


@pytest.mark.parametrize(('potential', 'order'), ORDERS)
def test_vectors(potential, order):
    x_ND, tuples = random_case(order)
    expected = torch.stack([by_vectors(potential, x_ND, indices) for indices in tuples.tolist()])
    torch.testing.assert_close(potential(gram_of(x_ND), tuples), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(('potential', 'order'), ORDERS)
def test_gradcheck(potential, order):
    x_ND, tuples = random_case(order)
    assert torch.autograd.gradcheck(lambda x: potential(gram_of(x), tuples), x_ND.requires_grad_())


@pytest.mark.parametrize(('potential', 'order'), ORDERS)
def test_blind_to_rotation_shift_and_scale(potential, order):
    x_ND, tuples = random_case(order)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    moved = potential(gram_of(40 * x_ND @ turn + 7), tuples)
    torch.testing.assert_close(moved, potential(gram_of(x_ND), tuples), rtol=1e-9, atol=1e-12)


def test_simplex_of_three_is_the_squared_sine():
    x_ND, tuples = random_case(3)
    cosine = angle_potential(gram_of(x_ND), tuples[:, [1, 0, 2]])
    torch.testing.assert_close(simplex_potential(gram_of(x_ND), tuples), 1 - cosine**2)


def test_simplex_is_one_for_orthogonal_edges_and_zero_in_a_plane():
    corner = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double()
    flat = torch.randn(5, 2, dtype=torch.float64)
    tuples = torch.arange(5)[None]
    torch.testing.assert_close(simplex_potential(gram_of(corner), tuples), torch.ones(1, dtype=torch.float64))
    assert simplex_potential(gram_of(flat), tuples).abs() < 1e-12


@pytest.mark.parametrize(('potential', 'order'), ORDERS)
def test_samples_that_coincide_give_zero_and_no_gradient(potential, order):
    x_ND = torch.ones(8, 5, dtype=torch.float64, requires_grad=True)
    value = potential(gram_of(x_ND), torch.arange(order)[None])
    value.sum().backward()
    assert value == 0
    assert not x_ND.grad.any()


@pytest.mark.parametrize(
    ('potential', 'order'), [(distance_potential, 3), (angle_potential, 2), (simplex_potential, 7)]
)
def test_wrong_order(potential, order):
    with pytest.raises(ValueError, match=rf'{potential.__name__}: expected tuples of order .* but got {order}'):
        potential(torch.eye(8), torch.arange(order)[None])
