"""The C kernel against brute force: rows that do not fill its blocks, threads, lanes, and that it is vector code."""

import shutil

import pytest
import torch

from mmkd_ext.ops import angle as angle_c
from mmkd_ext.ops.angle import angle_sum_c

pytestmark = pytest.mark.skipif(not (shutil.which('cc') or shutil.which('gcc')), reason='needs a C compiler')


@pytest.mark.parametrize('num_samples', [3, 4, 15, 16, 17, 31, 66, 130])
@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_brute_force(check_angle_sum, num_samples, dtype, rtol):
    check_angle_sum(angle_sum_c, num_samples, dtype=dtype, rtol=rtol)


@pytest.mark.parametrize('vertices', [slice(0, 5), slice(3, 40), slice(7, 7)], ids=str)
@pytest.mark.parametrize('delta', [0.05, 2.5])
def test_some_vertices(check_angle_sum, vertices, delta):
    check_angle_sum(angle_sum_c, 40, vertices, delta=delta)


def test_more_columns_than_are_taken_at_a_time(check_angle_sum):
    check_angle_sum(angle_sum_c, 1030, slice(500, 503), rtol=1e-10)


@pytest.mark.parametrize('num_threads', [2, 3, 7])
@pytest.mark.parametrize('num_samples', [5, 50, 131])
def test_threads(check_angle_sum, monkeypatch, num_threads, num_samples):
    monkeypatch.setattr(angle_c, '_SERIAL_TRIPLES', 0)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: num_threads)
    rows = angle_c._stripes(num_samples)
    assert [i for part in rows for i in range(num_samples)[part]] == list(range(num_samples))
    check_angle_sum(angle_sum_c, num_samples)


def test_any_layout_of_the_matrices():
    square_NN = torch.rand(20, 40, dtype=torch.float64)[:, ::2]
    square_NN = square_NN + square_NN.T
    wide_NN = torch.zeros(20, 40, dtype=torch.float64)
    wide_NN[:, ::2] = square_NN
    loss, slope_NN = angle_sum_c(wide_NN[:, ::2], square_NN.T, 1.0, True, slice(0, 20))
    assert loss < 1e-20
    assert slope_NN.abs().max() < 1e-12


def test_a_batch_gives_the_same_numbers_again():
    squares = [torch.cdist(x, x).square() for x in torch.randn(2, 100, 9)]
    (loss, slope_NN), (again, again_NN) = (angle_sum_c(*squares, 1.0, True, slice(0, 100)) for _ in range(2))
    assert torch.equal(loss, again)
    assert torch.equal(slope_NN, again_NN)


def test_nan_stays_in_the_loss():
    square_NN = torch.ones(9, 9).fill_diagonal_(0)
    broken_NN = square_NN.clone()
    broken_NN[2, 5] = torch.nan
    assert angle_sum_c(square_NN, broken_NN, 1.0, True, slice(0, 9))[0].isnan()
