"""The two data paths of small images: one image after the other by PIL in workers, and whole batches on the device."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.logging import MessageHub
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from scipy import stats

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.datasets import CIFAR100
from mmkd_ext.registry import DATASETS, MODELS
from official_layouts import WRITERS

pytestmark = pytest.mark.usefixtures('host_scope', 'one_thread')

CONFIGS = Path(__file__).parents[2] / 'configs'
NUM_VIEWS = 700


def blob():
    """A smooth coloured image in which every place and every operation shows."""
    rows, columns = np.mgrid[0:32, 0:32] / 31
    return np.stack([40 + 180 * rows, 220 - 160 * columns, 30 + 200 * rows * columns], axis=-1).astype(np.uint8)


def describe(views_N3HW):
    """Numbers that tell what was done to an image: brightness, colour, contrast, detail, orientation, black border."""
    x = views_N3HW.double()
    red, green, blue = x.mean((2, 3)).T
    return {
        'mean': x.mean((1, 2, 3)),
        'red - green': red - green,
        'blue - green': blue - green,
        'deviation': x.std((2, 3)).mean(1),
        'detail': (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)),
        'left - right': (x[..., :9] - x[..., -9:]).mean((1, 2, 3)),
        'top - bottom': (x[..., :9, :] - x[..., -9:, :]).mean((1, 2, 3)),
        'black': (x == 0).double().mean((1, 2, 3)),
        'grey levels': torch.tensor([float(view.unique().numel()) for view in views_N3HW]),
    }


@pytest.mark.parametrize(('pil', 'device'), [('large_view', 'large_augments'), ('small_view', 'small_augments')])
def test_both_paths_make_the_same_distribution_of_views(pil, device):
    steps = [TRANSFORMS.build(step) for step in Config.fromfile(CONFIGS / '_base_/datasets/ncd_cifar100_50.py')[pil]]
    by_pil = []
    for _ in range(NUM_VIEWS):
        sample = {'img': blob()}
        for step in steps:
            sample = step(sample)
        by_pil.append(torch.from_numpy(np.ascontiguousarray(sample['img'])).permute(2, 0, 1))
    augments = Config.fromfile(CONFIGS / '_base_/datasets/cifar_on_device.py')[device]
    preprocessor = MODELS.build(
        dict(type='mmkd_ext.MultiViewDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3, batch_augments=augments)
    )
    MessageHub.get_current_instance().update_info_dict({'seed': 0, 'iter': 0})
    data = {
        'inputs': torch.from_numpy(blob()).permute(2, 0, 1).repeat(3 * NUM_VIEWS, 1, 1, 1),
        'data_samples': [BaseDataElement(metainfo={'sample_idx': index}) for index in range(3 * NUM_VIEWS)],
    }
    on_device = describe(preprocessor(data, training=True)['inputs'])
    for name, expected in describe(torch.stack(by_pil)).items():
        assert stats.ks_2samp(on_device[name], expected).pvalue > 1e-3, name
        assert stats.ttest_ind(on_device[name], expected, equal_var=False).pvalue > 1e-3, name


@pytest.fixture
def config(tmp_path, monkeypatch):
    """UNO on a hundred small images and with a small network: 5 batches an epoch."""
    monkeypatch.setattr(CIFAR100, 'images_per_file', {'train': 100, 'test': 100})
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)  # versions of compilers, which take long to ask
    monkeypatch.chdir(tmp_path)
    WRITERS['cifar100'](tmp_path / 'data/cifar100')
    cfg = Config.fromfile(CONFIGS / 'uno/uno_resnet18_500e_cifar100-50_on-device.py')
    cfg.model.backbone = dict(type='mmkd_ext.ConvNet', in_channels=3, channels=(4, 8))
    for head in (cfg.model.known_head, cfg.model.novel_head):
        head.in_channels = 8
    cfg.model.novel_head.update(hidden_channels=8, embed_channels=8)
    cfg.train_dataloader.batch_size = 20
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=7)
    for part in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    cfg.custom_hooks = []
    cfg.load_from = None
    return cfg


def run(cfg, name, **changes):
    cfg = cfg.copy()
    cfg.work_dir = name
    cfg.update(changes)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return load_checkpoint_safely(Path(name, 'last_checkpoint').read_text())['state_dict']


def test_a_resumed_run_is_the_uninterrupted_one(config):
    expected = run(config, 'whole')
    resumed = run(config, 'resumed', resume=True, load_from='whole/iter_7.pth')
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    other = run(config, 'other', randomness=dict(seed=1))
    assert any(not torch.equal(value, other[name]) for name, value in expected.items())


def test_views_of_an_image_do_not_depend_on_the_number_of_processes(config, monkeypatch):
    dataset = DATASETS.build(config.train_dataloader.dataset)
    preprocessor = MODELS.build(config.model.data_preprocessor)
    MessageHub.get_current_instance().update_info_dict({'seed': 0, 'iter': 3})

    def first_batch(rank, world_size):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world_size))
        indices = list(DefaultSampler(dataset, seed=0))[: 20 // world_size]
        return indices, preprocessor(dataset.__getitems__(indices), training=True)['inputs']

    order, expected = first_batch(0, 1)
    for rank in range(2):
        indices, views = first_batch(rank, 2)
        rows = [order.index(index) for index in indices]
        for view, expected_view in zip(views, expected, strict=True):
            assert torch.equal(view, expected_view[rows])
