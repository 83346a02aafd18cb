"""The sum of angles in plain torch and in C, against brute force; which is taken, and that a wrong one never is."""

import logging
import shutil

import pytest
import torch

from mmkd_ext.functional import rkd_angle
from mmkd_ext.ops import geometry as angle
from mmkd_ext.ops.geometry import angle_path, angle_sum_c, angle_sum_torch

NEEDS_COMPILER = pytest.mark.skipif(not (shutil.which('cc') or shutil.which('gcc')), reason='needs a C compiler')
BOTH = pytest.mark.parametrize('angle_sum', [angle_sum_torch, pytest.param(angle_sum_c, marks=NEEDS_COMPILER)])


@BOTH
def test_brute_force(check_angle_sum, angle_sum):
    """Sizes that fit the tiles of torch, the blocks, rows and lanes of C, and that do not."""
    for dtype, rtol in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        for num_samples in (3, 4, 15, 16, 17, 31, 66, 67, 130):
            check_angle_sum(angle_sum, num_samples, dtype=dtype, rtol=rtol)


@BOTH
def test_some_vertices(check_angle_sum, angle_sum):
    for vertices in (slice(0, 5), slice(3, 40), slice(7, 7)):
        for delta in (0.05, 2.5):
            check_angle_sum(angle_sum, 40, vertices, delta=delta)


@BOTH
def test_millions_of_float32_terms_cost_one_digit_at_most(angle_sum):
    """Added up in the order that a BLAS likes, they are 1e-5 off."""
    x_ND = torch.randn(2, 130, 6)
    squares = [(x - x[:, None]).square().sum(dim=-1) for x in x_ND]
    found, _ = angle_sum(*squares, 0.3, False, slice(0, 130))
    expected, _ = angle_sum(*(square_NN.double() for square_NN in squares), 0.3, False, slice(0, 130))
    torch.testing.assert_close(found, expected, rtol=5e-7, atol=0)


@NEEDS_COMPILER
def test_more_columns_than_are_taken_at_a_time(check_angle_sum):
    check_angle_sum(angle_sum_c, 1030, slice(500, 503), rtol=1e-10)


@NEEDS_COMPILER
@pytest.mark.parametrize('num_threads', [2, 3, 7])
def test_threads(check_angle_sum, monkeypatch, num_threads):
    monkeypatch.setattr(angle, '_SERIAL_TRIPLES', 0)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: num_threads)
    for num_samples in (5, 50, 131):
        stripes = angle._stripes(num_samples)
        assert [i for stripe in stripes for i in range(num_samples)[stripe]] == list(range(num_samples))
        check_angle_sum(angle_sum_c, num_samples)


@BOTH
def test_any_layout_of_the_matrices(angle_sum):
    square_NN = torch.rand(20, 40, dtype=torch.float64)[:, ::2]
    square_NN = square_NN + square_NN.T
    wide_NN = torch.zeros(20, 40, dtype=torch.float64)
    wide_NN[:, ::2] = square_NN
    loss, slope_NN = angle_sum(wide_NN[:, ::2], square_NN.T, 1.0, True, slice(0, 20))
    assert loss < 1e-20
    assert slope_NN.abs().max() < 1e-12


@BOTH
def test_a_batch_gives_the_same_numbers_again(angle_sum):
    squares = [torch.cdist(x, x).square() for x in torch.randn(2, 100, 9)]
    (loss, slope_NN), (again, again_NN) = (angle_sum(*squares, 1.0, True, slice(0, 100)) for _ in range(2))
    assert torch.equal(loss, again)
    assert torch.equal(slope_NN, again_NN)


@BOTH
def test_nan_stays_in_the_loss(angle_sum):
    square_NN = torch.ones(9, 9).fill_diagonal_(0)
    broken_NN = square_NN.clone()
    broken_NN[2, 5] = torch.nan
    assert angle_sum(square_NN, broken_NN, 1.0, True, slice(0, 9))[0].isnan()


# --------------------------------------------------------------------------------------------------
# Which is taken, and what the log says when it is the slow one.


@pytest.fixture
def fresh(monkeypatch):
    """Forget which kernels worked, before and after; the kernel in C is what the test gives."""
    monkeypatch.delenv('MMKD_KERNELS', raising=False)
    angle._works.cache_clear()
    yield lambda kernel: monkeypatch.setattr(angle, 'angle_sum_c', kernel)
    angle._works.cache_clear()


def test_switched_off_nothing_is_built(monkeypatch, fresh, caplog):
    monkeypatch.setenv('MMKD_KERNELS', 'off')
    fresh(None)
    assert angle_path('cpu') == 'torch'
    assert angle_path('cuda') == 'torch'
    assert rkd_angle(torch.randn(5, 3), torch.randn(5, 4)) > 0
    assert not caplog.records


def test_other_devices_run_torch():
    assert angle_path('meta') == 'torch'


def test_unknown_switch(monkeypatch):
    monkeypatch.setenv('MMKD_KERNELS', 'fast')
    with pytest.raises(ValueError, match=r"MMKD_KERNELS: .* on or off .* 'fast'"):
        angle_path('cpu')


def test_a_kernel_that_agrees_is_used(fresh):
    fresh(angle_sum_torch)
    assert angle_path('cpu', torch.float32) == 'c'
    assert angle_path(torch.device('cpu'), torch.float64) == 'c'


def not_built(*_):
    raise OSError('no compiler')


def wrong_loss(*arguments):
    loss, slope_NN = angle_sum_torch(*arguments)
    return loss * 1.001, slope_NN


def wrong_slope(*arguments):
    loss, slope_NN = angle_sum_torch(*arguments)
    slope_NN[3, 4] += slope_NN.abs().max()
    return loss, slope_NN


def not_a_number(*arguments):
    loss, slope_NN = angle_sum_torch(*arguments)
    return loss, slope_NN * torch.nan


@pytest.mark.parametrize(
    ('kernel', 'reason'),
    [(not_built, 'no compiler'), (wrong_loss, 'differs'), (wrong_slope, 'differs'), (not_a_number, 'differs')],
)
def test_one_line_says_why_torch_is_used(fresh, caplog, kernel, reason):
    fresh(kernel)
    with caplog.at_level(logging.WARNING):
        assert [angle_path('cpu') for _ in range(3)] == ['torch'] * 3
        assert rkd_angle(torch.randn(5, 3), torch.randn(5, 4)) > 0
    assert len(caplog.records) == 1
    assert reason in caplog.text
