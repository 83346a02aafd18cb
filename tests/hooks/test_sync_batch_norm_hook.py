"""SyncBatchNormHook converts the model before any other hook sees it."""

from types import SimpleNamespace

from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmengine.runner import get_priority
from torch import nn

from mmkd_ext.engine.cpu import SyncBatchNorm
from mmkd_ext.hooks import DistillHook, SyncBatchNormHook


def test_converts_the_model_and_keeps_the_keys_of_checkpoints():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    keys = list(model.state_dict())
    HOOKS.build({'type': 'mmkd_ext.SyncBatchNormHook'}).before_run(SimpleNamespace(model=model))
    assert isinstance(model[1], SyncBatchNorm)
    assert list(model.state_dict()) == keys


def test_runs_before_hooks_that_look_at_modules():
    assert get_priority(SyncBatchNormHook.priority) < get_priority(DistillHook.priority)
    assert get_priority(SyncBatchNormHook.priority) < get_priority(EMAHook.priority)
