"""Potentials against geometry, sampling against its distribution, masks, and the loss against RKD over all tuples."""

import functools
import itertools
import math

import pytest
import torch

from mmkd_ext.functional import (
    analogy_potential,
    angle_potential,
    distance_potential,
    keep_tuples,
    rkd_angle,
    rkd_distance,
    sample_tuples,
    simplex_potential,
    tuple_relation,
)

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


def test_vectors():
    for potential, order in ORDERS:
        x_ND, tuples = random_case(order)
        expected = torch.stack([by_vectors(potential, x_ND, indices) for indices in tuples.tolist()])
        torch.testing.assert_close(potential(gram_of(x_ND), tuples), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(('potential', 'order'), ORDERS)
def test_gradcheck(potential, order):
    x_ND, tuples = random_case(order)
    assert torch.autograd.gradcheck(lambda x: potential(gram_of(x), tuples), x_ND.requires_grad_())


def test_blind_to_rotation_shift_and_scale():
    for potential, order in ORDERS:
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


def test_samples_that_coincide_give_zero_and_no_gradient():
    for potential, order in ORDERS:
        x_ND = torch.ones(8, 5, dtype=torch.float64, requires_grad=True)
        value = potential(gram_of(x_ND), torch.arange(order)[None])
        value.sum().backward()
        assert value == 0
        assert not x_ND.grad.any()


def test_wrong_order():
    for potential, order in [(distance_potential, 3), (angle_potential, 2), (simplex_potential, 7)]:
        with pytest.raises(ValueError, match=rf'{potential.__name__}: expected tuples of order .* but got {order}'):
            potential(torch.eye(8), torch.arange(order)[None])


# --------------------------------------------------------------------------------------------------
# Tuples, and the loss on them.


def all_tuples(num_samples, order):
    return torch.tensor(list(itertools.permutations(range(num_samples), order)))


def random_pair(num_samples=7, dtype=torch.float64):
    return torch.randn(num_samples, 4, dtype=dtype), torch.randn(num_samples, 6, dtype=dtype)


@pytest.mark.parametrize('order', [1, 2, 3, 5])
def test_samples_are_distinct_and_every_tuple_is_equally_likely(order):
    num_samples, num_draws = 5, 60_000
    tuples = sample_tuples(num_samples, order, num_draws)
    place = (tuples * num_samples ** torch.arange(order)).sum(dim=1)
    expected_place = (all_tuples(num_samples, order) * num_samples ** torch.arange(order)).sum(dim=1)
    counts = torch.bincount(place, minlength=num_samples**order)
    assert counts.sum() == counts[expected_place].sum()
    # Chi-squared has a mean of k - 1 and a standard deviation of sqrt(2 (k - 1)).
    num_cells = len(expected_place)
    mean = num_draws / num_cells
    chi_squared = float((counts[expected_place] - mean).square().sum()) / mean
    assert chi_squared < num_cells - 1 + 5 * math.sqrt(2 * (num_cells - 1))


def test_equal_seeds_draw_equal_tuples():
    first, second = (sample_tuples(9, 4, 50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


def test_tuples_that_do_not_exist():
    for order, num_tuples in [(0, 3), (6, 3), (2, -1)]:
        with pytest.raises(ValueError, match='sample_tuples: expected 1 <= order <= num_samples'):
            sample_tuples(5, order, num_tuples)


def test_share_of_kept_tuples():
    for order in [2, 3]:
        for fraction in [0.0, 0.1, 0.5, 1.0]:
            tuples = torch.combinations(torch.arange(60), order)
            kept = keep_tuples(torch.arange(60), tuples, fraction=fraction, epoch=0).double().mean()
            assert abs(float(kept) - fraction) <= 5 * math.sqrt(fraction * (1 - fraction) / len(tuples))


def test_mask_depends_on_the_samples_and_not_on_their_place():
    ids = torch.randperm(10_000)[:40]
    tuples = torch.combinations(torch.arange(40), 3)
    kept = keep_tuples(ids, tuples, fraction=0.3, epoch=5)
    place = torch.randperm(40)
    moved = keep_tuples(ids[place], place.argsort()[tuples].flip(dims=[1]), fraction=0.3, epoch=5)
    assert torch.equal(kept, moved)


def test_each_epoch_keeps_other_tuples():
    tuples = torch.combinations(torch.arange(100), 2)
    first, second = (keep_tuples(torch.arange(100), tuples, fraction=0.5, epoch=epoch) for epoch in (0, 1))
    assert abs(float((first == second).double().mean()) - 0.5) < 5 * 0.5 / math.sqrt(len(tuples))


def test_bad_fraction():
    with pytest.raises(ValueError, match=r'keep_tuples: expected fraction in \[0, 1\] but got 2'):
        keep_tuples(torch.arange(3), torch.tensor([[0, 1]]), fraction=2, epoch=0)


@pytest.mark.parametrize(
    ('loss', 'potential', 'order'), [(rkd_distance, distance_potential, 2), (rkd_angle, angle_potential, 3)]
)
def test_on_all_tuples_it_is_rkd(loss, potential, order):
    for delta in [0.1, 1.0]:
        student, teacher = random_pair()
        results = []
        for function in (
            functools.partial(tuple_relation, tuples=all_tuples(7, order), potential=potential),
            functools.partial(loss, reduction='distinct'),
        ):
            leaf = student.clone().requires_grad_()
            value = function(leaf, teacher, delta=delta)
            value.backward()
            results.append((value.detach(), leaf.grad))
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-13)


def test_random_tuples_estimate_the_mean_over_all():
    student, teacher = random_pair(24)
    expected = rkd_angle(student, teacher, reduction='distinct')
    estimates = torch.stack(
        [tuple_relation(student, teacher, sample_tuples(24, 3, 300), potential=angle_potential) for _ in range(100)]
    )
    assert abs(estimates.mean() - expected) < 4 * estimates.std() / 10


def test_own_potential_and_mask():
    student, teacher = random_pair()
    tuples, keep = sample_tuples(7, 2, 30), torch.arange(30) < 11

    def product(gram_NN, pairs_M2):
        return gram_NN[pairs_M2[:, 0], pairs_M2[:, 1]]

    loss = tuple_relation(student, teacher, tuples, potential=product, keep=keep)
    torch.testing.assert_close(loss, tuple_relation(student, teacher, tuples[:11], potential=product))
    assert tuple_relation(student, teacher, tuples, potential=product, keep=torch.zeros(30)) == 0


@pytest.mark.parametrize('potential', [distance_potential, simplex_potential])
def test_half_input_and_offset(potential):
    student, teacher = random_pair(dtype=torch.float32)
    tuples = sample_tuples(7, 2 if potential is distance_potential else 4, 50)
    far, near = 1000 + student, (1000 + student) - 1000
    torch.testing.assert_close(
        tuple_relation(far, teacher, tuples, potential=potential),
        tuple_relation(near, teacher, tuples, potential=potential),
    )
    half = student.half().requires_grad_()
    loss = tuple_relation(half, teacher, tuples, potential=potential)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad.dtype == torch.float16
    assert half.grad.isfinite().all()


def test_no_tuples_are_a_differentiable_zero():
    student, teacher = random_pair()
    loss = tuple_relation(
        student.requires_grad_(), teacher, torch.zeros(0, 3, dtype=torch.int64), potential=angle_potential
    )
    loss.backward()
    assert loss == 0
    assert not student.grad.any()


def test_bad_input():
    student, teacher = random_pair()
    tuples = sample_tuples(7, 3, 4)
    with pytest.raises(ValueError, match=r'tuple_relation: expected tuples of shape \(M, O\) but got \(3,\)'):
        tuple_relation(student, teacher, tuples[0, :], potential=angle_potential)
    with pytest.raises(ValueError, match='tuple_relation: expected student and teacher'):
        tuple_relation(student, teacher[:3], tuples, potential=angle_potential)
    with pytest.raises(ValueError, match='tuple_relation: expected delta > 0'):
        tuple_relation(student, teacher, tuples, potential=angle_potential, delta=-1.0)
