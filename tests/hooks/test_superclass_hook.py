import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.registry import MODELS
from torch import nn
from torch.nn.functional import cross_entropy

from mmkd_ext.hooks import SuperclassHook
from mmkd_ext.scores.cluster_accuracy import adjusted_rand_index

PACK = [{'type': 'PackInputs', 'meta_keys': ()}]
FLIP = [{'type': 'RandomFlip', 'prob': 0.5}, *PACK]


@MODELS.register_module(force=True)
class SuperclassNet(BaseModel):
    """The feature of a digit: its pixels, so that clusters are known without training."""

    def __init__(self, scale=1.0):
        super().__init__(ImgDataPreprocessor([0.0], [255.0]))
        self.scale = nn.Parameter(torch.tensor(scale))
        self.pixels, self.head = nn.Identity(), nn.Linear(64, 10)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        features = self.pixels(inputs.flatten(1) * self.scale)
        if mode == 'loss':
            labels = torch.cat([sample.gt_label for sample in data_samples])
            return {'loss_cls': cross_entropy(self.head(features), labels)}
        return self.head(features)


def dataset(pipeline, split='train', num_samples=120):
    return {'type': 'mmkd_ext.Digits', 'split': split, 'indices': num_samples, 'pipeline': pipeline}


def config(folder, epochs=1, num_samples=120, scale=1.0, work='work', hook=None, **kwargs):
    checkpoint = Path(folder, f'teacher_{scale}.pth')
    if not checkpoint.exists():
        torch.save(SuperclassNet(scale).state_dict(), checkpoint)
    teacher = {'model': {'type': 'SuperclassNet'}, 'checkpoint': str(checkpoint)}
    options = {'num_superclasses': 4, 'tap': 'pixels', 'cache': str(Path(folder, 'cache')), **(hook or {})}
    common = {'num_workers': 0, 'collate_fn': {'type': 'default_collate'}}
    return {
        'default_scope': 'mmpretrain',
        'model': {'type': 'SuperclassNet'},
        'work_dir': str(Path(folder, work)),
        'train_dataloader': {
            'dataset': dataset(FLIP, num_samples=num_samples),
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_sampler': {'type': 'mmkd_ext.SuperclassUniformBatchSampler', 'samples_per_group': 5},
            'batch_size': 10,
            **common,
        },
        'test_dataloader': {
            'dataset': dataset(PACK, split='test'),
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            **common,
        },
        'test_evaluator': {'type': 'Accuracy'},
        'test_cfg': {},
        'train_cfg': {'by_epoch': True, 'max_epochs': epochs},
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.1}},
        'custom_hooks': [{'type': 'mmkd_ext.SuperclassHook', 'teacher': teacher, **options}],
        'randomness': {'seed': 0},
        'log_level': 'ERROR',
        **kwargs,
    }


def train(case, *args, **kwargs):
    runner = case.build_runner(Config(config(*args, **kwargs)))
    runner.train()
    return runner


def stored(folder, cache='cache'):
    return np.array(json.loads(Path(folder, cache, 'superclasses.json').read_text())['superclasses'])


@pytest.fixture
def num_features(monkeypatch):
    """Sizes of the data sets whose features were computed."""
    from mmkd_ext.hooks import cluster_hooks as superclass_hook

    sizes, compute = [], superclass_hook.features_of_dataset

    def count(teacher, tap, student, view, loader, batch_size):
        features = compute(teacher, tap, student, view, loader, batch_size)
        sizes.append(len(features))
        return features

    monkeypatch.setattr(superclass_hook, 'features_of_dataset', count)
    return sizes


def test_superclasses_are_clusters_of_the_features_under_the_test_time_pipeline(case, tmp_path):
    from sklearn.cluster import KMeans

    from mmkd_ext.datasets import Digits

    runner = train(case, tmp_path)
    ids = stored(tmp_path)
    pixels = np.stack([info['img'].ravel() for info in Digits(indices=120).data_list]) / 255
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    expected = KMeans(4, n_init=1, random_state=0).fit(pixels.astype(np.float32)).labels_
    assert adjusted_rand_index(expected, ids) > 0.95  # a random flip would change them
    for batch in runner.train_dataloader.batch_sampler:
        assert np.unique(ids[batch], return_counts=True)[1].tolist() == [5, 5]


def test_they_are_computed_once_and_training_is_the_same_with_them(case, tmp_path, num_features):
    first = train(case, tmp_path)
    second = train(case, tmp_path, work='other')
    assert num_features == [120]
    for name, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value)
    assert not list(Path(tmp_path, 'cache').glob('*.partial'))


def test_without_a_folder_they_are_kept_in_the_work_dir(case, tmp_path):
    train(case, tmp_path, hook={'cache': None})
    assert len(stored(tmp_path / 'work', 'superclasses')) == 120


def test_small_clusters_are_merged_until_a_batch_repeats_no_sample(case, tmp_path):
    train(case, tmp_path, hook={'num_superclasses': 30})
    assert np.bincount(stored(tmp_path)).min() >= 5


def test_the_hook_finds_the_batch_sampler_that_exact_resume_has_wrapped(case, tmp_path):
    runner = train(case, tmp_path, default_hooks={'resume': {'type': 'mmkd_ext.ExactResumeHook'}})
    assert len(list(runner.train_dataloader.batch_sampler)) == 12


@pytest.mark.parametrize(
    ('changed', 'name'),
    [
        ({'scale': 2.0}, 'teacher'),
        ({'hook': {'tap': 'head'}}, 'tap'),
        ({'num_samples': 110}, 'data set'),
        ({'hook': {'pipeline': FLIP}}, 'view'),
        ({'hook': {'num_superclasses': 3}}, 'number of superclasses'),
        ({'hook': {'seed': 1}}, 'seed'),
        ({'hook': {'min_size': 2}}, 'min_size'),
    ],
)
def test_a_folder_of_something_else_is_refused(case, tmp_path, changed, name):
    train(case, tmp_path)
    with pytest.raises(ValueError, match=rf'SuperclassHook: .* another {name}.*cache'):
        train(case, tmp_path, **changed)


def test_a_damaged_file_is_refused(case, tmp_path):
    train(case, tmp_path)
    file = tmp_path / 'cache' / 'superclasses.json'
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match=r'SuperclassHook: .*superclasses.json .*damaged'):
        train(case, tmp_path)


def test_a_resumed_run_has_the_superclasses_it_had(case, tmp_path):
    train(case, tmp_path)
    train(case, tmp_path, epochs=2, resume=True)
    with pytest.raises(ValueError, match=r'SuperclassHook: .*checkpoint .*got others'):
        train(case, tmp_path, epochs=3, resume=True, hook={'seed': 1, 'cache': str(tmp_path / 'new')})


def test_another_batch_sampler_is_refused(case, tmp_path):
    cfg = config(tmp_path)
    del cfg['train_dataloader']['batch_sampler']
    with pytest.raises(TypeError, match=r'SuperclassHook: .*SuperclassUniformBatchSampler .*got BatchSampler'):
        case.build_runner(Config(cfg)).train()


def test_wrong_keys_of_the_teacher():
    with pytest.raises(TypeError, match=r'SuperclassHook: .*config=.*checkpoint='):
        SuperclassHook(teacher={'config': 'x.py'}, tap='neck', num_superclasses=3)


def test_works_in_a_loop_that_counts_iterations(case, tmp_path):
    runner = train(case, tmp_path, train_cfg={'by_epoch': False, 'max_iters': 15})
    assert runner.iter == 15


# Two processes


def _train_replica(rank, case, folder):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    wrapper = {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
    options = {'launcher': 'pytorch', 'model_wrapper_cfg': wrapper}
    runner = case.build_runner(
        Config(config(folder, num_samples=119, work='two', hook={'cache': f'{folder}/two'}, **options))
    )
    runner.train()
    torch.save(torch.from_numpy(runner.train_dataloader.batch_sampler.plan(0)), folder / f'rank_{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_find_the_superclasses_of_one(case, tmp_path):
    train(case, tmp_path, num_samples=119)
    torch.multiprocessing.start_processes(_train_replica, (case, tmp_path), nprocs=2, start_method='fork')
    ids = stored(tmp_path, 'two')
    assert np.array_equal(ids, stored(tmp_path))
    steps = np.concatenate([torch.load(tmp_path / f'rank_{rank}.pth').numpy() for rank in range(2)], axis=1)
    for step in steps:
        assert len(set(step)) == 20
        assert np.unique(ids[step], return_counts=True)[1].tolist() == [5] * 4
