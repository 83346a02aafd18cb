"""What every command does first: several processes on a machine without a GPU."""

import warnings

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmkd_ext.cli import prepare


@pytest.fixture(autouse=True)
def _restore(monkeypatch):
    """Leave the process as it was: threads, warnings, checkpoint loaders."""
    threads, schemes = torch.get_num_threads(), dict(CheckpointLoader._schemes)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with warnings.catch_warnings():
        yield
    torch.set_num_threads(threads)
    CheckpointLoader._schemes = schemes


def test_threads_of_the_config():
    prepare(Config(dict(cpu_threads=1)), 'none')
    assert torch.get_num_threads() == 1


def test_one_process_needs_no_group():
    cfg = Config(dict(sync_bn='torch'))
    prepare(cfg, 'none')
    assert cfg.sync_bn == 'torch'
    assert not torch.distributed.is_initialized()


def test_cpu_processes_use_gloo_and_a_wrapper_without_devices(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', started.append)
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl')), sync_bn='torch', find_unused_parameters=True))
    prepare(cfg, 'pytorch')
    assert started == ['gloo']
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert 'sync_bn' not in cfg
    assert cfg.custom_hooks == [{'type': 'mmkd_ext.SyncBatchNormHook'}]
    prepare(cfg, 'pytorch')
    assert len(cfg.custom_hooks) == 1
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.find_unused_parameters is True
    assert cfg.model_wrapper_cfg.broadcast_buffers is False


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_other_launchers_need_a_gpu(launcher):
    with pytest.raises(ValueError, match=rf'"pytorch" .*got \'{launcher}\''):
        prepare(Config({}), launcher)


def test_local_checkpoints_are_loaded_safely():
    prepare(Config({}), 'none')
    assert 'safe' in CheckpointLoader._get_checkpoint_loader('some/file.pth').__name__
