"""Cr-KD on digits, one process with batches of 128 against two with 64 each: the same training.

Three things make the batches of both runs the same. A shuffling ``DefaultSampler`` deals its order out in turn, so the
two halves of a step are together the batch of the run alone. Views are fixed warps: random ones would be drawn per
process. And batch norm, native in the run alone, takes its statistics over both processes (``sync_bn``).
"""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import distributed

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.cli import prepare

ROOT = Path(__file__).parents[2]
LOSSES = ('loss_cluster', 'loss_crkd')


def without_evaluation(cfg, work_dir):
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
    cfg.randomness = dict(seed=0)
    cfg.work_dir = str(work_dir)
    return cfg


def train_stage_one(folder):
    config = ROOT / 'configs/supervised/supervised_convnet_40e_digits.py'
    Runner.from_cfg(without_evaluation(Config.fromfile(config), folder)).train()
    return dict(config=str(config), checkpoint=(folder / 'last_checkpoint').read_text())


def recipe(folder, name, teacher, batch_size):
    cfg = Config.fromfile(ROOT / 'configs/crkd/crkd_convnet_80e_digits.py')
    warps = [
        [dict(type='NumpyToPIL'), dict(type='torchvision/RandomAffine', degrees=(d, d), interpolation='bilinear')]
        for d in (0, 10)
    ]
    cfg.train_dataloader.dataset.dataset.pipeline[0] = dict(type='MultiView', num_views=[1, 1], transforms=warps)
    cfg.train_dataloader.batch_size = batch_size
    cfg.load_from = teacher['checkpoint']
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'mmkd_ext.DiscoveryReportHook']
    cfg.custom_hooks[-1].teacher = teacher
    cfg.custom_hooks[-1].terms.crkd.loss.loss_weight = 0.1
    cfg.sync_bn = 'torch'
    return without_evaluation(cfg, folder / name)


def train(cfg):
    """Losses of each iteration, and the weights in the end."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    model = runner.model.module if hasattr(runner.model, 'module') else runner.model
    return {
        'losses': torch.stack([torch.as_tensor(scalars[f'train/{name}'].data[0]) for name in LOSSES]),
        'weights': model.state_dict(),
    }


def train_one_of_two(rank, folder, cfg):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    cfg.launcher = 'pytorch'
    prepare(cfg, cfg.launcher)
    torch.save(train(cfg), folder / f'{rank}.pth')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """What the run alone found, and what each of two processes found."""
    folder = tmp_path_factory.mktemp('two_processes')
    teacher = train_stage_one(folder / 'stage_one')
    cfg = recipe(folder, 'two', teacher, batch_size=64)
    torch.multiprocessing.start_processes(train_one_of_two, (folder, cfg), nprocs=2, start_method='fork')
    pair = [load_checkpoint_safely(folder / f'{rank}.pth') for rank in (0, 1)]
    return train(recipe(folder, 'one', teacher, batch_size=128)), pair


def test_loss_curve_of_the_first_epoch(runs):
    alone, pair = runs
    assert alone['losses'].shape == (2, 9)
    # It is a training: the curve moves by far more than the tolerance.
    assert (alone['losses'][:, 0] - alone['losses'][:, -1]).abs().max() > 0.01
    for found in pair:
        torch.testing.assert_close(found['losses'], alone['losses'], rtol=0, atol=1e-4)


def test_weights_and_statistics_after_the_epoch(runs):
    alone, pair = runs
    assert all(found['weights'].keys() == alone['weights'].keys() for found in pair)
    for name, expected in alone['weights'].items():
        # Each process knows the objective of the whole batch; after the epoch both are added up.
        factor = 2 if name.endswith(('objective_sum', 'objective_count')) else 1
        for found in pair:
            torch.testing.assert_close(found['weights'][name], factor * expected, rtol=1e-3, atol=1e-4)
