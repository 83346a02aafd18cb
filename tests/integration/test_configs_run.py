"""Every shipped config trains: two iterations of the stock Runner on four small images, with narrow networks."""

import gc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.hub import get_config
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner

import train
from mmkd_ext import visualization
from mmkd_ext.datasets import CIFAR10, CIFAR100
from mmkd_ext.datasets.omniglot import ALPHABETS
from mmkd_ext.models.teacher import build_model_from_config
from official_layouts import WRITERS
from stages import dicts_in, find_stages, replace_everywhere

pytestmark = pytest.mark.usefixtures('one_thread', 'folder')

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / 'configs'
SHIPPED = [
    str(path.relative_to(CONFIGS))
    for path in sorted(CONFIGS.rglob('*.py'))
    if '_base_' not in path.parts and 'mmseg' not in path.parts
]
BATCH, ITERATIONS = 4, 2

# What is narrowed, and how wide the embedding then is.
NARROW = {
    'mmkd_ext.ConvNet': (dict(), None),
    'mmkd_ext.CIFARResNet': (dict(depth=8), None),
    'mmkd_ext.WideResNet': (dict(depth=10), None),
    'ResNet': (dict(depth=18, stem_channels=8, base_channels=8), 64),
    'ResNet_CIFAR': (dict(stem_channels=8, base_channels=8), 64),
    'VisionTransformer': (dict(arch=dict(embed_dims=24, num_layers=12, num_heads=2, feedforward_channels=24)), 24),
}


@DATA_SAMPLERS.register_module()
class FewSamples(DefaultSampler):
    """As many samples as the iterations need, again and again if there are not so many."""

    def __iter__(self) -> Iterator[int]:
        wanted = np.linspace(0, len(self.dataset), BATCH, endpoint=False, dtype=int).tolist()
        return islice(wanted * ITERATIONS, len(self))

    def __len__(self) -> int:
        return BATCH * ITERATIONS


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The working directory of the runs, with data and checkpoints under the paths that configs name."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('run')
        patch.chdir(folder)
        patch.setattr(CIFAR10, 'images_per_file', {'train': 10, 'test': 10})
        patch.setattr(CIFAR100, 'images_per_file', {'train': 100, 'test': 100})
        patch.setitem(ALPHABETS, 'background', {'Latin': 2})
        patch.setitem(ALPHABETS, 'evaluation', {'Tibetan': 5})
        # Reports, versions of compilers, layout of the config's text, and full collections take longer than training.
        patch.setattr(visualization, 'write_report', lambda *_, **__: None)
        patch.setattr(Runner, '_log_env', lambda *_: None)
        patch.setattr(Config, 'pretty_text', property(_plain_text))
        patch.setattr(gc, 'collect', lambda *_: 0)
        for name, write in WRITERS.items():
            write(folder / 'data' / name)
        yield folder


def _plain_text(cfg: Config) -> str:
    return ''.join(f'{name} = {value!r}\n' for name, value in cfg.to_dict().items())


def _narrow(cfg: Config) -> Config:
    """Make the networks small and the batches too; all else stays as shipped."""
    options, width = NARROW[cfg.model.backbone.type]
    cfg.model.backbone.update(options)
    if '://' in cfg.model.backbone.get('init_cfg', {}).get('checkpoint', ''):
        cfg.model.backbone.init_cfg = None  # nothing is downloaded
    for name, part in cfg.model.items():
        if width and name.endswith('head'):
            part.in_channels = width
    for mode in ('train', 'val', 'test'):
        cfg[f'{mode}_dataloader'].update(num_workers=0, persistent_workers=False)
    if cfg.model.type == 'mmkd_ext.PrototypicalNetwork':
        _narrow_episodes(cfg)
    elif 'batch_sampler' in cfg.train_dataloader:
        of_metric_learning = cfg.train_dataloader.batch_sampler.type == 'mmkd_ext.MPerClassBatchSampler'
        group = 'samples_per_class' if of_metric_learning else 'samples_per_group'
        cfg.train_dataloader.batch_sampler.update({group: 2, 'num_batches': ITERATIONS})
        cfg.train_dataloader.batch_size = BATCH if of_metric_learning else cfg.train_dataloader.batch_size
    else:
        cfg.train_dataloader.update(batch_size=BATCH, sampler=dict(type='FewSamples'))
    cfg.train_cfg.max_epochs = _num_generations(cfg)
    return cfg


def _num_generations(cfg: Config) -> int:
    """Of a config with :class:`mmkd_ext.GenerationHook`, each an epoch here; else 1."""
    return max((hook.get('num_generations', 1) for hook in cfg.get('custom_hooks', [])), default=1)


def _narrow_episodes(cfg: Config) -> None:
    cfg.model.backbone.channels = (4, 4, 4, 4)
    cfg.train_dataloader.batch_size = BATCH
    cfg.train_dataloader.batch_sampler.update(num_ways=2, num_shots=1, num_queries=1, num_episodes=ITERATIONS)
    cfg.val_evaluator.num_episodes = 2


def _load(config: str) -> Config:
    return _narrow(get_config(config) if '::' in config else Config.fromfile(config))


def _pretrain(cfg: Config) -> None:
    """Leave the weights that the backbone starts from under the path that the config names."""
    init = cfg.model.backbone.get('init_cfg')
    if init and init.type == 'Pretrained' and not Path(init.checkpoint).exists():
        Path(init.checkpoint).parent.mkdir(parents=True, exist_ok=True)
        path = Path('pretrained.py')
        Config(dict(default_scope=cfg.default_scope, model=cfg.model)).dump(path)
        torch.save({'state_dict': build_model_from_config(path).state_dict()}, init.checkpoint)


def _make_stage(config: str, checkpoint: str) -> str:
    """Leave random weights where a stage would have left its own; returns its narrow config."""
    path = Path('stages', f'{Path(config).stem}.py').absolute()
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        _load(config).dump(path)
        Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
        torch.save({'state_dict': build_model_from_config(path).state_dict()}, checkpoint)
    return str(path)


@pytest.mark.parametrize('name', SHIPPED)
def test_trains(name):
    cfg = _load(str(CONFIGS / name))
    _pretrain(cfg)
    for checkpoint, config in find_stages(cfg).items():
        narrow = _make_stage(config, checkpoint)
        cfg = Config(replace_everywhere(cfg._cfg_dict.to_dict(), config, narrow), filename=cfg.filename)
    for node in dicts_in(cfg.model):
        if node.get('num_classes') == 'auto':
            node['num_classes'] = 3  # tests/integration/test_num_classes.py has the estimate
    cfg.work_dir = f'work_dirs/{Path(name).stem}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    num_generations = _num_generations(cfg)
    assert runner.iter == ITERATIONS * num_generations
    assert (Path(cfg.work_dir) / f'epoch_{num_generations}.pth').is_file()
    logged = {key.removeprefix('train/'): log.data[0] for key, log in runner.message_hub.log_scalars.items()}
    assert len(logged['loss']) == ITERATIONS * num_generations
    assert np.isfinite(logged['loss']).all()
    for term in {term for hook in cfg.get('custom_hooks', []) for term in hook.get('terms', ())}:
        assert np.isfinite(logged[f'loss_{term}']).all()


@pytest.mark.parametrize('option', [[], ['--with-teacher']])
def test_a_published_teacher_is_asked_for_and_never_trained(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'checkpoints/resnet34\S+ but found none; download the published one'):
        train.main([str(CONFIGS / 'kd/kd_resnet18_8xb32_in1k.py'), *option])


def test_configs_of_mmseg_are_run_by_their_own_test():
    own = (HERE / 'test_mmseg.py').read_text()
    assert all(path.name in own for path in CONFIGS.glob('mmseg/*.py'))
