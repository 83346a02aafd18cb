"""Counts against all distances in float64, sorted by (distance, index), on inputs where rounding decides."""

import numpy as np
import pytest
import torch

from mmkd_ext.scores.retrieval import misses_before_hit

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


def brute_force(queries, labels, gallery, found, limit):
    """Python's own sort of (distance, index), the query left out by index."""
    items, classes = (queries, labels) if gallery is None else (gallery, found)
    counts = []
    for own, (query, label) in enumerate(zip(queries.double(), labels.tolist(), strict=True)):
        squares = (items.double() - query).square().sum(dim=1).tolist()
        order = sorted((square, i) for i, square in enumerate(squares) if gallery is not None or i != own)
        ranks = [rank for rank, (_, i) in enumerate(order) if int(classes[i]) == label]
        counts.append(min(ranks[0], limit) if ranks else limit)
    return counts


@pytest.fixture(params=[False, True], ids=['one tile', 'many tiles'])
def tiles(request, monkeypatch):
    if request.param:
        for name, value in (('_TILE', (48, 64)), ('_CLASS_TILE', (20, 30))):
            monkeypatch.setattr(f'mmkd_ext.scores.retrieval.{name}', value)


@pytest.fixture(params=[0, 16])
def doubts(request, monkeypatch):
    """How many doubts are settled here; beyond, the list of neighbours decides."""
    monkeypatch.setattr('mmkd_ext.scores.retrieval._DOUBTS', request.param)


@pytest.mark.usefixtures('tiles', 'doubts')
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', range(2))
def test_against_brute_force(kind, seed):
    rng = np.random.default_rng(seed)
    size, num_dims, limit = rng.choice([2, 30, 110]), rng.choice([1, 2, 8, 33]), int(rng.choice([1, 2, 8, 300]))
    num_classes = rng.choice([1, 3, 40])
    dtype = [torch.float32, torch.float64][seed % 2]
    queries, gallery = (torch.tensor(KINDS[kind](rng, n, num_dims), dtype=dtype) for n in (size, 70))
    labels, found = (torch.tensor(rng.integers(0, num_classes, n)) for n in (size, 70))
    for arguments in ((queries, labels, None, None, limit), (queries, labels, gallery, found, limit)):
        assert misses_before_hit(*arguments).tolist() == brute_force(*arguments)


def test_near_ties_that_single_precision_cannot_tell():
    """Two points at nearly the same distance, the one of another class nearer, or farther, by 1e-12 of it."""
    query = torch.zeros(1, 3, dtype=torch.float64)
    relevant, other = torch.tensor([[0.0, 3.0, 4.0]]), torch.tensor([[5.0, 0.0, 0.0]])
    for share, expected in ((1 - 1e-12, 1), (1 + 1e-12, 0)):
        gallery = torch.cat([share * other.double(), relevant.double()])
        assert misses_before_hit(query, torch.tensor([0]), gallery, torch.tensor([1, 0]), 8).tolist() == [expected]


@pytest.mark.parametrize(('order', 'expected'), [([0, 1], 0), ([1, 0], 1)])
def test_of_two_equally_near_the_lower_index_comes_first(order, expected):
    found = torch.tensor(order)
    gallery = torch.tensor([[1.0], [-1.0]])
    assert misses_before_hit(torch.zeros(1, 1), torch.tensor([0]), gallery, found, 8).tolist() == [expected]


def test_counts_stop_at_the_limit():
    queries, labels = torch.arange(20.0)[:, None], torch.tensor([0, *[1] * 18, 0])
    assert misses_before_hit(queries, labels, None, None, 30)[[0, 19]].tolist() == [18, 18]
    assert misses_before_hit(queries, labels, None, None, 5)[[0, 19]].tolist() == [5, 5]


def test_wrong_input():
    labels = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match='expected finite queries'):
        misses_before_hit(torch.tensor([[1.0], [torch.nan]]), labels, None, None, 1)
