"""Distillation in mmpretrain: a shipped config of the host, our hook added, nothing else touched."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkd_ext.models.teacher import build_model_from_config

pytestmark = pytest.mark.usefixtures('one_thread')

PLAIN = "_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'\n"
ADDED = """
custom_hooks = [dict(
    type='mmkd_ext.DistillHook',
    teacher=dict(config='mmpretrain::resnet/resnet34_8xb16_cifar10.py', checkpoint='{checkpoint}'),
    terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0)),
        rkd_angle=dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0))))]
"""
BATCH, ITERATIONS = 4, 2


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder in CIFAR-10's own layout with a few random images, which mmpretrain takes for the complete data."""
    from mmpretrain.datasets import CIFAR10

    rng = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, files, count in (('data_batch_1', 'train_list', BATCH * ITERATIONS), ('test_batch', 'test_list', BATCH)):
        images = rng.integers(256, size=(count, 3 * 32 * 32), dtype=np.uint8)
        content = pickle.dumps({'data': images, 'labels': [i % 10 for i in range(count)]})
        (folder / name).write_bytes(content)
        monkeypatch.setattr(CIFAR10, files, [[name, hashlib.md5(content).hexdigest()]])
    return tmp_path


def _config(path, data_root):
    """One epoch with the host's model, pipeline, optimizer and hooks."""
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.batch_size, loader.dataset.data_root = 0, BATCH, str(data_root)
    cfg.train_cfg.max_epochs = 1
    return cfg


def test_rkd_takes_ten_lines_and_leaves_a_checkpoint_of_plain_mmpretrain(
    tmp_path, cifar10, train, teachers, load_in_plain_host
):
    teacher = build_model_from_config('mmpretrain::resnet/resnet34_8xb16_cifar10.py')
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    assert len([line for line in ADDED.splitlines() if line]) <= 10
    (tmp_path / 'plain.py').write_text(PLAIN)
    (tmp_path / 'distilled.py').write_text(PLAIN + ADDED.format(checkpoint=tmp_path / 'teacher.pth'))

    plain_losses, plain = train(_config(tmp_path / 'plain.py', cifar10), tmp_path / 'plain')
    losses, distilled = train(_config(tmp_path / 'distilled.py', cifar10), tmp_path / 'distilled')
    assert losses['loss'][0] == plain_losses['loss'][0]  # the head's own loss, of the same student and batch
    for term in ('loss_rkd_distance', 'loss_rkd_angle'):
        assert len(losses[term]) == ITERATIONS
        assert np.isfinite(losses[term]).all()
        assert (losses[term] > 0).all()

    assert list(distilled) == list(plain)
    assert not torch.equal(distilled['backbone.conv1.weight'], plain['backbone.conv1.weight'])
    assert load_in_plain_host(tmp_path / 'plain.py', tmp_path / 'distilled/epoch_1.pth') == list(plain)

    before, after = teacher.state_dict(), teachers[0].state_dict()
    assert teachers[0] is not teacher
    assert all(torch.equal(before[key], after[key]) for key in before)
