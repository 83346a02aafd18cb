"""Which path is taken, what the log says when it is the slow one, and that a wrong kernel is never used."""

import logging

import pytest
import torch

from mmkd_ext.functional import rkd_angle
from mmkd_ext.ops import angle as choice
from mmkd_ext.ops.angle import angle_path, angle_sum_torch


@pytest.fixture
def fresh():
    """Forget which kernels worked, before and after."""
    choice._works.cache_clear()
    yield
    choice._works.cache_clear()


def use(monkeypatch, kernel):
    monkeypatch.setattr(choice, 'angle_sum_c', kernel)


def test_switched_off_nothing_is_built(monkeypatch, fresh, caplog):
    monkeypatch.setenv('MMKD_KERNELS', 'off')
    use(monkeypatch, None)
    assert angle_path('cpu') == 'torch'
    assert angle_path('cuda') == 'torch'
    assert rkd_angle(torch.randn(5, 3), torch.randn(5, 4)) > 0
    assert not caplog.records


def test_other_devices_run_torch():
    assert angle_path('meta') == 'torch'


def test_unknown_switch(monkeypatch):
    monkeypatch.setenv('MMKD_KERNELS', 'fast')
    with pytest.raises(ValueError, match="MMKD_KERNELS: expected on or off but got 'fast'"):
        angle_path('cpu')


def test_a_kernel_that_agrees_is_used(monkeypatch, fresh):
    monkeypatch.delenv('MMKD_KERNELS', raising=False)
    use(monkeypatch, angle_sum_torch)
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
def test_one_line_says_why_torch_is_used(monkeypatch, fresh, caplog, kernel, reason):
    monkeypatch.delenv('MMKD_KERNELS', raising=False)
    use(monkeypatch, kernel)
    with caplog.at_level(logging.WARNING):
        assert [angle_path('cpu') for _ in range(3)] == ['torch'] * 3
        assert rkd_angle(torch.randn(5, 3), torch.randn(5, 4)) > 0
    assert len(caplog.records) == 1
    assert reason in caplog.text
