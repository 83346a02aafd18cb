"""Neighbours against all distances in float64, sorted by (distance, index), on inputs where rounding decides."""

import numpy as np
import pytest
import torch

from mmkd_ext.scores.neighbours import nearest_neighbours, neighbour_blocks, prepare

KINDS = {
    'integers': lambda rng, n, d: rng.integers(-2, 3, (n, d)),
    'binary': lambda rng, n, d: rng.integers(0, 2, (n, d)),
    'continuous': lambda rng, n, d: rng.normal(size=(n, d)),
    'collapsed': lambda rng, n, d: np.full((n, d), 7.3),
    'half dead': lambda rng, n, d: rng.normal(size=(n, d)) * (np.arange(n) % 2)[:, None],
    'duplicates': lambda rng, n, d: rng.normal(size=(1 + n // 3, d))[rng.integers(0, 1 + n // 3, n)],
    'far from the origin': lambda rng, n, d: 1000 + 1e-3 * rng.normal(size=(n, d)),
    'an outlier': lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) == n // 2, 1e6, 1)[:, None],
    'huge': lambda rng, n, d: 1e30 * rng.normal(size=(n, d)),
    'tiny': lambda rng, n, d: 1e-30 * rng.normal(size=(n, d)),
}


def brute_force(queries, gallery, k):
    """Python's own sort of (distance, index), the query left out by index."""
    found = []
    for own, query in enumerate(queries.double()):
        items = queries if gallery is None else gallery
        squares = (items.double() - query).square().sum(dim=1).tolist()
        order = sorted((square, index) for index, square in enumerate(squares) if gallery is not None or index != own)
        found.append([index for _, index in order[:k]])
    return found


@pytest.fixture(params=[False, True], ids=['one tile', 'many tiles'])
def tiles(request, monkeypatch):
    if request.param:
        monkeypatch.setattr('mmkd_ext.scores.neighbours._TILE', 64)


@pytest.fixture(params=[64, -300], ids=['noted', 'searched'])
def pairs(request, monkeypatch):
    """How many pairs a query notes before it is looked at on its own in the end."""
    monkeypatch.setattr('mmkd_ext.scores.neighbours._PAIRS', request.param)


@pytest.mark.usefixtures('tiles', 'pairs')
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', range(4))
def test_against_brute_force(kind, seed):
    rng = np.random.default_rng(seed)
    size, num_dims, k = rng.choice([2, 5, 30, 150]), rng.choice([1, 2, 8, 33]), rng.choice([1, 2, 8, 200])
    dtype = [torch.float32, torch.float64][seed % 2]
    queries, gallery = (torch.tensor(KINDS[kind](rng, n, num_dims), dtype=dtype) for n in (size, 70))
    assert nearest_neighbours(queries, k=k).tolist() == brute_force(queries, None, k)
    assert nearest_neighbours(queries, gallery, k=k).tolist() == brute_force(queries, gallery, k)


def test_near_ties_that_single_precision_cannot_tell():
    """Points around a circle, distances to its centre apart by 1e-9 of them."""
    angle = torch.linspace(0, 6, 60, dtype=torch.float64)
    radius = 1 + 1e-9 * torch.randperm(60).double()
    gallery = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    centre = torch.zeros(1, 2, dtype=torch.float64)
    assert nearest_neighbours(centre, gallery, k=60)[0].tolist() == radius.argsort().tolist()
    rounded = gallery.float()
    assert nearest_neighbours(centre.float(), rounded, k=60).tolist() == brute_force(centre, rounded, 60)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_it_is(dtype):
    x = torch.randn(60, 16).to(dtype)
    assert torch.equal(nearest_neighbours(x, k=9), nearest_neighbours(x.double(), k=9))


def test_inside_autocast():
    x = torch.randn(60, 16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = nearest_neighbours(x, k=9)
    assert torch.equal(found, nearest_neighbours(x, k=9))


def test_gallery_in_another_dtype():
    queries, gallery = torch.randn(5, 3), torch.randn(40, 3, dtype=torch.float64)
    assert nearest_neighbours(queries, gallery, k=40).tolist() == brute_force(queries, gallery, 40)


def test_a_query_with_many_duplicates_is_left_out_by_index():
    x = torch.ones(6, 2)
    assert nearest_neighbours(x, k=2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_moved_and_turned_points_have_the_same_neighbours():
    x = torch.randn(80, 6, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    assert torch.equal(nearest_neighbours(3 * x @ turn + 5, k=10), nearest_neighbours(x, k=10))


def test_blocks_are_consecutive_and_no_graph_is_kept(monkeypatch):
    monkeypatch.setattr('mmkd_ext.scores.neighbours._TILE', 64)
    x = torch.randn(150, 3, requires_grad=True)
    blocks = list(neighbour_blocks(x, k=2))
    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(0, 64), (64, 128), (128, 150)]
    assert torch.equal(torch.cat([index for _, index in blocks]), nearest_neighbours(x, k=2))


@pytest.mark.parametrize(('size', 'num_items'), [(1, None), (0, None), (0, 3)])
def test_nothing_to_find(size, num_items):
    gallery = None if num_items is None else torch.ones(num_items, 2)
    assert nearest_neighbours(torch.ones(size, 2), gallery, k=3).shape == (size, 0)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((torch.ones(3),), r'expected queries of shape \(N, D\) but got \(3,\)'),
        ((torch.ones(3, 2), torch.ones(3, 4)), 'same width, at least 1, but got 2 and 4; embed both'),
        ((torch.ones(3, 2), None, 0), 'expected k >= 1 but got 0'),
        ((torch.tensor([[1.0], [torch.nan]]),), 'expected finite queries but got NaN or infinite values'),
        ((torch.ones(1, 1), torch.tensor([[torch.inf]])), 'expected finite gallery'),
    ],
)
def test_wrong_input(arguments, message):
    with pytest.raises(ValueError, match=f'nearest_neighbours: .*{message}'):
        nearest_neighbours(*arguments)


@pytest.mark.usefixtures('tiles')
def test_lists_too_long_to_hold_for_all_queries(monkeypatch):
    x = torch.rand(150, 4)
    expected = nearest_neighbours(x, k=5)
    monkeypatch.setattr('mmkd_ext.scores.neighbours._LIST_VALUES', 0)
    assert torch.equal(nearest_neighbours(x, k=5), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('spread', [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize('num_dims', [1, 64, 2048])
def test_products_are_off_by_no_more_than_their_bound(dtype, spread, num_dims):
    offset = torch.rand(num_dims, dtype=dtype) / 2
    x, y = (offset + spread / 8 * torch.randn(n, num_dims, dtype=dtype) for n in (20, 30))
    y[7] = 1  # one far from all others
    queries, gallery = prepare(x, y)
    found = -2 * queries.scores(slice(None), gallery, slice(None))
    error = (found.double() - (queries.x_ND.double()[:, None] - gallery.x_ND.double()).square().sum(dim=2)).abs()
    assert (error <= queries.bound(slice(None), found)).all()


def test_the_bound_of_unit_vectors_is_a_small_part_of_their_distances():
    x, _ = prepare(torch.nn.functional.normalize(torch.randn(50, 512)), None)
    assert x.bound(slice(None), torch.full((50, 1), 2.0)).max() < 2e-3


def test_short_products_are_not_trusted():
    """TF32 and bfloat16 products would break the bound."""
    x = torch.rand(20, 4)
    torch.set_float32_matmul_precision('medium')
    try:
        assert prepare(x, None)[0].row_ND2.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision('highest')
    assert prepare(x, None)[0].row_ND2.dtype == torch.float32
