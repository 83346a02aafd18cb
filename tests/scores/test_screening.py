"""Screening may be off, but never by more than its bound, and never loses a candidate."""

import pytest
import torch

from mmkd_ext.scores.neighbours import screen, to_points


def squares(queries, gallery):
    return (queries.double()[:, None] - gallery.double()[None]).square().sum(dim=2)


@pytest.fixture(params=[(16, 16), (64, 32), (4096, 4096)], ids=str)
def small_tiles(request, monkeypatch):
    for name, value in zip(('_TILE', '_BLOCK'), request.param, strict=True):
        monkeypatch.setattr(f'mmkd_ext.scores.neighbours.{name}', value)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('spread', [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize('num_dims', [1, 64, 2048])
def test_the_bound_holds(dtype, spread, num_dims):
    offset = torch.rand(num_dims, dtype=dtype) / 2
    queries, gallery = (offset + spread / 8 * torch.randn(n, num_dims, dtype=dtype) for n in (20, 30))
    gallery[7] = 1  # one far from all others
    query_points, gallery_points = to_points(queries, gallery)
    found = -2 * query_points.approximate(slice(None), gallery_points, slice(None))
    error = (found.double() - squares(queries, gallery)).abs()
    assert (error <= query_points.bound(slice(None), found)).all()


def test_the_bound_is_of_use():
    """Of unit vectors it is a small part of their distances."""
    x = torch.nn.functional.normalize(torch.randn(50, 512))
    points, _ = to_points(x, x)
    assert points.bound(slice(None), torch.full((50, 1), 2.0)).max() < 2e-3


@pytest.mark.usefixtures('small_tiles')
@pytest.mark.parametrize('num_candidates', [1, 3, 40])
@pytest.mark.parametrize('is_symmetric', [True, False])
def test_candidates_have_the_highest_scores(num_candidates, is_symmetric):
    queries = torch.rand(200, 5, dtype=torch.float64)
    gallery = queries if is_symmetric else torch.rand(150, 5, dtype=torch.float64)
    expected = squares(queries, gallery).sort(dim=1)
    found = list(screen(*to_points(queries, gallery), num_candidates))
    assert [rows.start for rows, _, _ in found] == [0, *(rows.stop for rows, _, _ in found[:-1])]
    torch.testing.assert_close(torch.cat([part.square_BM for part in found]), expected.values[:, :num_candidates])
    assert torch.equal(torch.cat([part.index_BM for part in found]), expected.indices[:, :num_candidates])


@pytest.mark.usefixtures('small_tiles')
def test_lists_too_long_to_hold_for_all_queries(monkeypatch):
    x = torch.rand(150, 4, dtype=torch.float64)
    expected = torch.cat([part.index_BM for part in screen(*to_points(x, x), 5)])
    monkeypatch.setattr('mmkd_ext.scores.neighbours._LIST_VALUES', 0)
    assert torch.equal(torch.cat([part.index_BM for part in screen(*to_points(x, x), 5)]), expected)


def test_short_products_are_not_trusted():
    """TF32 and bfloat16 products would break the bound."""
    x = torch.rand(20, 4)
    torch.set_float32_matmul_precision('medium')
    try:
        assert to_points(x, x)[0].row_ND2.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision('highest')
    assert to_points(x, x)[0].row_ND2.dtype == torch.float32
