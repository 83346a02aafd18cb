import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from torch.nn.functional import cross_entropy

from mmkd_ext.engine import teacher_features as teacher_cache
from mmkd_ext.hooks import DistillHook

PACK = {'type': 'PackInputs', 'meta_keys': ('sample_idx',)}


@MODELS.register_module(force=True)
class CacheNet(BaseModel):
    """Counts its forwards outside of training: those of a teacher."""

    def __init__(self, width=4, mean=100.0, **kwargs):
        super().__init__(ImgDataPreprocessor([mean], [50.0]))
        self.conv = nn.Sequential(nn.Conv2d(1, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 10)
        self.num_forwards = 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.num_forwards += not self.training
        logits = self.head(self.conv(inputs).mean((2, 3)))
        if mode == 'loss':
            return {'loss_cls': cross_entropy(logits, torch.cat([sample.gt_label for sample in data_samples]))}
        return logits


@pytest.fixture
def folder(tmp_path):
    torch.save(CacheNet(width=8).state_dict(), tmp_path / 'teacher.pth')
    return tmp_path


def dataset(pipeline=(PACK,), num_samples=40, **kwargs):
    return {'type': 'mmkd_ext.Digits', 'indices': num_samples, 'pipeline': list(pipeline), **kwargs}


def config(folder, data=None, cache='cache', epochs=3, tap='conv', mean=100.0, **kwargs):
    teacher = {'model': {'type': 'CacheNet', 'width': 8}, 'checkpoint': str(folder / 'teacher.pth')}
    if cache:
        teacher['cache'] = str(folder / cache)
    terms = {'sp': {'tap': tap, 'loss': {'type': 'mmkd_ext.SPLoss'}}}
    return Config(
        {
            'default_scope': 'mmpretrain',
            'model': {'type': 'CacheNet', 'mean': mean},
            'work_dir': str(folder / 'work'),
            'train_dataloader': {
                'dataset': data or dataset(),
                'sampler': {'type': 'DefaultSampler', 'shuffle': True},
                'batch_size': 8,
                'num_workers': 0,
                'collate_fn': {'type': 'default_collate'},
            },
            'train_cfg': {'by_epoch': True, 'max_epochs': epochs},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
            'custom_hooks': [{'type': 'mmkd_ext.DistillHook', 'teacher': teacher, 'terms': terms}],
            'randomness': {'seed': 0},
            'experiment_name': f'{folder.name}_{np.random.default_rng().integers(1 << 60)}',
            'log_level': 'ERROR',
            **kwargs,
        }
    )


@pytest.fixture
def teachers(monkeypatch):
    """The teachers that were built, in order."""
    built, build = [], DistillHook.before_train

    def before_train(hook, runner):
        build(hook, runner)
        built.append(hook._distillation.teachers['teacher'].model)

    monkeypatch.setattr(DistillHook, 'before_train', before_train)
    return built


def train(*args, **kwargs):
    runner = Runner.from_cfg(config(*args, **kwargs))
    runner.train()
    return runner


# What it does


def test_student_learns_the_same_with_half_of_the_teachers_forwards_or_less(folder, teachers):
    students = [train(folder, cache=cache, epochs=6).model.state_dict() for cache in (None, 'cache', 'cache')]
    for student in students[1:]:
        for name, value in students[0].items():
            torch.testing.assert_close(student[name], value, rtol=1e-5, atol=1e-6)
    # Eight channels and eight images: which axis counts images is asked of a second batch.
    rehearsal, epoch, later_checks = 2, 5, 5
    assert teachers[0].num_forwards == rehearsal + 6 * epoch
    assert teachers[1].num_forwards == rehearsal + epoch + later_checks
    assert teachers[2].num_forwards <= rehearsal + 6


def test_repeated_dataset_shares_rows(folder, teachers):
    train(folder, {'type': 'RepeatDataset', 'times': 3, 'dataset': dataset()}, epochs=1)
    assert len(np.load(folder / 'cache' / 'rows.npy', mmap_mode='r')) == 40
    assert teachers[0].num_forwards < 1 + 15


def test_killed_run_leaves_what_it_has(folder, teachers):
    def stop(module, args, kwargs):
        if kwargs.get('mode') == 'loss' and module.training and runner.iter == 2:
            raise KeyboardInterrupt

    runner = Runner.from_cfg(config(folder))
    runner.model.register_forward_pre_hook(stop, with_kwargs=True)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert np.count_nonzero(np.load(folder / 'cache' / 'checksums.npy')) >= 16
    train(folder)
    assert np.count_nonzero(np.load(folder / 'cache' / 'checksums.npy')) == 40


def test_rows_that_are_half_written_are_computed_again(folder, teachers):
    train(folder)
    before = np.load(folder / 'cache' / 'rows.npy')
    rows = np.load(folder / 'cache' / 'rows.npy', mmap_mode='r+')
    rows[7, 10:] = 0
    rows.flush()
    train(folder)
    after = np.load(folder / 'cache' / 'rows.npy')
    stored, again = (torch.from_numpy(row[7].copy()).view(torch.float32) for row in (before, after))
    torch.testing.assert_close(again, stored, rtol=1e-5, atol=1e-6)
    assert np.array_equal(np.delete(after, 7, 0), np.delete(before, 7, 0))


# What it refuses


@pytest.mark.parametrize(
    ('transform', 'name'),
    [
        ({'type': 'RandomFlip', 'prob': 0.5}, 'RandomFlip'),
        ({'type': 'mmpretrain.RandomCrop', 'crop_size': 6}, 'RandomCrop'),
        ({'type': 'torchvision/RandomAffine', 'degrees': 5}, 'torchvision/RandomAffine'),
        ({'type': 'Solarize', 'thr': 128, 'prob': 1.0}, 'Solarize'),
    ],
)
def test_random_or_unknown_transform_is_refused(folder, transform, name):
    with pytest.raises(ValueError, match=f"without random transforms but got '{name}', which is random or unknown"):
        train(folder, dataset([transform, PACK]))
    assert not (folder / 'cache').exists()


def test_random_transform_below_a_wrapper_is_found(folder):
    data = {'type': 'RepeatDataset', 'times': 2, 'dataset': dataset([{'type': 'RandomFlip', 'prob': 0.5}, PACK])}
    with pytest.raises(ValueError, match="got 'RandomFlip'"):
        train(folder, data)


def test_own_transform_can_be_declared_free_of_chance(folder, monkeypatch):
    data = dataset([{'type': 'Solarize', 'thr': 128, 'prob': 1.0}, PACK])
    monkeypatch.setattr(teacher_cache, 'DETERMINISTIC_TRANSFORMS', {'Solarize', 'PackInputs'})
    train(folder, data, epochs=1)
    assert (folder / 'cache' / 'meta.json').is_file()


def test_batch_augmentation_is_refused(folder, monkeypatch):
    monkeypatch.setattr(ImgDataPreprocessor, 'batch_augments', nn.Identity(), raising=False)
    with pytest.raises(ValueError, match=r'without batch augmentations but got Identity \(Mixup'):
        train(folder)


def change_weights(folder):
    state = torch.load(folder / 'teacher.pth')
    state['head.bias'][0] += 1e-6
    torch.save(state, folder / 'teacher.pth')


def change_statistics(folder):
    state = torch.load(folder / 'teacher.pth')
    state['conv.1.running_mean'][0] += 1e-6
    torch.save(state, folder / 'teacher.pth')


@pytest.mark.parametrize(
    ('change', 'kwargs', 'what'),
    [
        (change_weights, {}, r'teacher \(weights or architecture\)'),
        (change_statistics, {}, r'teacher \(weights or architecture\)'),
        (None, {'tap': 'head'}, r'set of taps \(conv, now head\)'),
        (None, {'data': dataset(num_samples=39)}, 'number of samples'),
        (None, {'data': dataset(split='test')}, 'data set'),
        (None, {'data': dataset([{'type': 'CenterCrop', 'crop_size': 6}, PACK])}, 'view'),
        (None, {'mean': 101.0}, 'view'),
    ],
)
def test_anything_else_than_what_was_stored_is_refused(folder, change, kwargs, what):
    train(folder, epochs=1)
    before = np.load(folder / 'cache' / 'rows.npy')
    if change:
        change(folder)
    with pytest.raises(ValueError, match=f'are of another {what}.*delete the folder to fill it anew'):
        train(folder, **kwargs)
    assert np.array_equal(np.load(folder / 'cache' / 'rows.npy'), before)


def test_samples_that_share_an_index_are_refused(folder):
    data = {'type': 'ConcatDataset', 'datasets': [dataset(), dataset(split='test')]}
    with pytest.raises(ValueError, match='one image per sample_idx but 0 is that of several'):
        train(folder, data)


def test_samples_without_index_are_refused(folder):
    with pytest.raises(RuntimeError, match="add 'sample_idx' to the meta_keys"):
        train(folder, dataset([{**PACK, 'meta_keys': ()}]))


def test_whitelist_names_no_random_transform():
    assert not [name for name in teacher_cache.DETERMINISTIC_TRANSFORMS if 'Rand' in name or 'Auto' in name]


# Two processes


def _train_replica(rank, folder):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
    cfg = config(folder, data=dataset(num_samples=39), epochs=4, launcher='pytorch', model_wrapper_cfg=wrapper)
    runner = Runner.from_cfg({**cfg, 'experiment_name': 'both'})
    seen = {}

    def remember(module, args, kwargs):
        hook = next(hook for hook in runner.hooks if isinstance(hook, DistillHook))
        if kwargs.get('mode') != 'loss' or hook._distillation is None or not dist.is_initialized():
            return
        samples = [sample.sample_idx for sample in kwargs['data_samples']]
        rows, is_stored = hook._distillation.teachers['teacher'].store.read(samples)
        for sample, row in zip(np.array(samples)[is_stored], rows[is_stored], strict=True):
            assert np.array_equal(seen.setdefault(int(sample), row), row)

    runner.model.module.register_forward_pre_hook(remember, with_kwargs=True)
    runner.train()
    torch.save({sample: torch.from_numpy(np.array(row)) for sample, row in seen.items()}, folder / f'rank_{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_fill_one_cache(folder):
    torch.multiprocessing.start_processes(_train_replica, (folder,), nprocs=2, start_method='fork')
    assert np.count_nonzero(np.load(folder / 'cache' / 'checksums.npy')) == 39
    left, right = (torch.load(Path(folder, f'rank_{rank}.pth')) for rank in range(2))
    shared = left.keys() & right.keys()
    assert len(shared) > 10
    assert all(torch.equal(left[sample], right[sample]) for sample in shared)
