"""What is trained on which images: recipe, configs of the stages, and the folder of all of it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import PARAM_SCHEDULERS
from PIL import Image

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover import (
    Options,
    OutFolder,
    Recipe,
    choose_recipe,
    discovery_config,
    representation_config,
    stage_one_config,
)
from mmkd_ext.discover.inference import novel_class_names
from mmkd_ext.discover.stage_configs import forecast
from mmkd_ext.registry import MODELS
from mmkd_ext.samplers import QuotaBatchSampler

# --------------------------------------------------------------------------------------------------
# Recipe.


OWN = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=3, channels=(4, 6), init_cfg=dict(type='Pretrained')),
    data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb={to_rgb}))
"""


@pytest.fixture
def images(tmp_path):
    def make(side: int, num_images: int, are_grey: bool = True, num_labelled: int = 300) -> FolderImages:
        path = str(tmp_path / 'x.png')
        Image.fromarray(np.tile(np.array([0, 200], dtype=np.uint8), (8, 4))).save(path)
        num_labelled = min(num_labelled, num_images - 1)
        labels = [0] * num_labelled + [-1] * (num_images - num_labelled)
        return FolderImages([path] * num_images, labels, ['a', 'b'], [side] * num_images, are_grey)

    return make


@pytest.mark.parametrize(('side', 'stages'), [(3, 3), (8, 3), (12, 3), (28, 3), (32, 3), (33, 4), (64, 4)])
def test_small_images_keep_their_size_and_stay_in_memory(images, side, stages):
    recipe = choose_recipe(images(side, 5))
    assert (recipe.side, recipe.crop) == (max(side, 8), max(side, 8))
    assert recipe.in_memory
    assert len(recipe.backbone['channels']) == stages
    assert recipe.num_features == recipe.backbone['channels'][-1]


def test_normalisation_is_that_of_the_pixels(images):
    recipe = choose_recipe(images(8, 5))
    assert recipe.mean == [100.0] * 3
    assert recipe.std == [100.0] * 3


@pytest.mark.parametrize(('num_images', 'epochs'), [(50, 80), (1250, 80), (2000, 50), (5000, 20), (100_000, 20)])
def test_epochs_by_number(images, num_images, epochs):
    assert choose_recipe(images(8, num_images)).epochs == epochs
    assert choose_recipe(images(8, num_images), epochs=3).epochs == 3


@pytest.mark.parametrize(('num_labelled', 'batch_size'), [(1, 2), (50, 50), (500, 128)])
def test_every_stage_fills_a_batch(images, num_labelled, batch_size):
    recipe = choose_recipe(images(8, 600, num_labelled=num_labelled))
    assert (recipe.batch_size, recipe.contrast_batch_size) == (batch_size, 256)


def test_a_batch_is_not_larger_than_there_are_images(images):
    assert choose_recipe(images(8, 60, num_labelled=50)).contrast_batch_size == 60


def test_colour_decides_on_the_augmentation(images):
    assert choose_recipe(images(8, 5, are_grey=False)).is_photo
    assert not choose_recipe(images(8, 5, are_grey=True)).is_photo


def test_large_images_take_a_resnet_18(images):
    recipe = choose_recipe(images(65, 5), checkpoint='weights.pth')
    assert (recipe.side, recipe.crop, recipe.in_memory) == (256, 224, False)
    assert (recipe.backbone['type'], recipe.backbone['depth'], recipe.num_features) == ('ResNet', 18, 512)
    assert recipe.neck == {'type': 'GlobalAveragePooling'}
    assert recipe.mean == [123.675, 116.28, 103.53]
    assert recipe.is_pretrained
    assert recipe.backbone['init_cfg']['checkpoint'] == 'weights.pth'


@pytest.mark.parametrize('to_rgb', [True, False])
def test_backbone_of_a_config_file(images, tmp_path, to_rgb):
    (tmp_path / 'own.py').write_text(OWN.format(to_rgb=to_rgb))
    recipe = choose_recipe(images(8, 5), backbone=os.fspath(tmp_path / 'own.py'))
    assert (recipe.num_features, recipe.mean, recipe.std) == (6, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert recipe.to_bgr is not to_rgb
    assert not recipe.is_pretrained


def test_near_misses_of_a_name(images):
    with pytest.raises(KeyError, match='resnet18_8xb32_in1k'):
        choose_recipe(images(8, 5), backbone='resnet18_8xb32_in1')


# --------------------------------------------------------------------------------------------------
# Configs of the stages.


@pytest.fixture
def recipe():
    return Recipe(
        side=10,
        crop=8,
        in_memory=True,
        is_photo=False,
        backbone={'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': [4, 6]},
        neck={'type': 'GlobalAveragePooling'},
        num_features=6,
        mean=[1.0, 2.0, 3.0],
        std=[4.0, 5.0, 6.0],
        to_bgr=False,
        epochs=16,
        batch_size=4,
        contrast_batch_size=8,
    )


@pytest.fixture
def configs(recipe):
    common = recipe, Path('/out'), 3, 7
    return {
        'representation': representation_config(*common),
        'stage_one': stage_one_config(*common),
        'discovery': discovery_config(*common, num_novel=5, assign_to='all'),
    }


@pytest.mark.parametrize('stage', ['representation', 'stage_one', 'discovery'])
def test_models_learn_from_two_views(configs, host_scope, stage):
    cfg = Config(configs[stage])
    model = MODELS.build(cfg.model)
    samples = [_sample(label) for label in (0, 2, 1, 0 if stage == 'stage_one' else -1)]
    losses = model(torch.rand(2, 4, 3, 8, 8).unbind(), samples, mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert cfg.randomness.seed == 7
    assert cfg.train_dataloader.batch_size == (8 if stage == 'representation' else 4)
    assert cfg.work_dir == f'/out/{stage}'
    assert cfg.train_dataloader.dataset.subset == ('labelled' if stage == 'stage_one' else 'all')


def _sample(label: int):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(label)


def test_discovery_starts_from_stage_one_and_has_it_as_teacher(configs):
    cfg = configs['discovery']
    teacher = next(hook for hook in cfg['custom_hooks'] if hook['type'] == 'mmkd_ext.DistillHook')['teacher']
    assert teacher == {'config': '/out/configs/stage_one.py', 'checkpoint': '/out/stage_one/epoch_8.pth'}
    assert cfg['load_from'] == teacher['checkpoint']
    assert configs['stage_one']['train_cfg']['max_epochs'] == 8
    assert cfg['train_cfg']['max_epochs'] == 16
    assert cfg['model']['novel_head']['num_classes'] == 5


@pytest.mark.parametrize(('assign_to', 'num_iters'), [('all', 20), ('novel', None)])
def test_assignments_to_all_classes_converge(recipe, host_scope, assign_to, num_iters):
    model = discovery_config(recipe, Path('/out'), 3, 7, 5, assign_to)['model']
    assert model.get('sinkhorn', {}).get('num_iters') == num_iters
    assert MODELS.build(model).assign.keywords.get('num_iters') == num_iters


@pytest.mark.parametrize('epochs', [1, 2, 3, 80])
def test_schedules_of_any_length(recipe, epochs):
    short = replace(recipe, epochs=epochs)
    for cfg in (stage_one_config(short, Path('/o'), 3, 0), discovery_config(short, Path('/o'), 3, 0, 2, 'novel')):
        warm_up, *cosine = cfg['param_scheduler']
        assert warm_up['end'] <= cfg['train_cfg']['max_epochs']
        assert all(part['begin'] == warm_up['end'] < part['end'] for part in cosine)


@pytest.mark.parametrize('is_pretrained', [False, True])
def test_every_schedule_reaches_its_rate(recipe, is_pretrained):
    """By mmengine's schedulers, for 1 to 40 epochs; an epoch may be a single iteration, so nothing rises within one."""
    backbone = {**recipe.backbone, **({'init_cfg': {'type': 'Pretrained'}} if is_pretrained else {})}
    for epochs in range(1, 41):
        of = replace(recipe, epochs=epochs, backbone=backbone)
        common = of, Path('/o'), 3, 0
        for cfg in (
            representation_config(*common),
            stage_one_config(*common),
            *(discovery_config(*common, number, 'all') for number in (0, 2)),
        ):
            rates = _rates(cfg)
            nominal = cfg['optim_wrapper']['optimizer']['lr']
            assert max(rates) == pytest.approx(nominal), (epochs, cfg['work_dir'], rates)
            assert rates[0] < nominal or len(rates) < 16
            assert rates[-1] <= nominal


def _rates(cfg):
    """Rate of each epoch."""
    settings = cfg['optim_wrapper']['optimizer']
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings['lr'])
    schedulers = [PARAM_SCHEDULERS.build(dict(part, optimizer=optimizer)) for part in cfg['param_scheduler']]
    rates = []
    for _ in range(cfg['train_cfg']['max_epochs']):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ('num_labelled', 'num_images', 'batch', 'labelled'),
    [
        (4, 804, 128, 4),
        (4, 10_000, 128, 4),
        (50, 850, 128, 16),
        (100, 300, 100, None),
        (20, 40, 20, None),
        (2, 42, 10, 1),
    ],
)
def test_few_labelled_images_do_not_make_batches_small(images, num_labelled, num_images, batch, labelled):
    recipe = choose_recipe(images(8, num_images, num_labelled=num_labelled))
    loader = discovery_config(recipe, Path('/o'), 2, 0, 3, 'all')['train_dataloader']
    assert loader['batch_size'] == batch
    if labelled is None:
        assert 'batch_sampler' not in loader
        return
    sampler = DefaultSampler(_Masked(np.arange(num_images) < num_labelled), shuffle=True, seed=0)
    batches = np.array(list(QuotaBatchSampler(sampler, batch, loader['batch_sampler']['num_unlabelled'])))
    assert batches.shape[1] == batch
    assert (batches < num_labelled).sum(axis=1).tolist() == [labelled] * len(batches)
    assert set(range(num_labelled)) <= set(batches.ravel().tolist())


@dataclass
class _Masked:
    labelled: np.ndarray

    def __len__(self):
        return len(self.labelled)


def test_no_batch_is_larger_than_the_user_wants(images):
    recipe = choose_recipe(images(8, 2000, num_labelled=300), max_batch_size=16)
    assert (recipe.batch_size, recipe.contrast_batch_size, recipe.discovery_batch_size) == (16, 16, None)


# --------------------------------------------------------------------------------------------------
# Weights, options and cost.


def test_weights_of_a_file_fit_or_are_refused_at_once(images, tmp_path):
    (tmp_path / 'own.py').write_text(OWN.format(to_rgb=True))
    fitting = MODELS.build(dict(type='mmkd_ext.ConvNet', in_channels=3, channels=(4, 6))).state_dict()
    named = {f'backbone.{name}': value for name, value in fitting.items()}
    other = MODELS.build(dict(type='mmkd_ext.ConvNet', in_channels=3, channels=(4, 8))).state_dict()
    for number, weights in enumerate((fitting, named, other)):
        torch.save({'state_dict': weights}, tmp_path / f'{number}.pth')
    given = {'backbone': str(tmp_path / 'own.py')}
    prefixes = [
        choose_recipe(images(8, 5), **given, checkpoint=str(tmp_path / name)).backbone['init_cfg'].get('prefix')
        for name in ('0.pth', '1.pth')
    ]
    assert prefixes == [None, 'backbone.']
    with pytest.raises(RuntimeError, match=r'--checkpoint: expected all \d+ entries of backbone'):
        choose_recipe(images(8, 5), **given, checkpoint=str(tmp_path / '2.pth'))


@pytest.mark.parametrize(
    ('changes', 'error', 'match'),
    [
        ({'epochs': 0}, ValueError, '--epochs: expected a number of at least 1 but got 0'),
        ({'epochs': -3}, ValueError, '--epochs'),
        ({'seed': -1}, ValueError, '--seed: expected a number of at least 0 and at most 4294967295 but got -1'),
        ({'seed': 2**32}, ValueError, '--seed'),
        ({'num_novel': 0}, ValueError, '--num-novel'),
        ({'batch_size': 1}, ValueError, '--batch-size'),
        ({'labelled': 'nowhere'}, FileNotFoundError, 'labelled images but found none at nowhere'),
        ({'unlabelled': 'nowhere'}, FileNotFoundError, 'unlabelled images but found none at nowhere'),
        ({'checkpoint': 'nowhere.pth'}, FileNotFoundError, '--checkpoint: expected a file or an address'),
        ({'backbone': 'resnet18_8xb32_in1'}, KeyError, 'resnet18_8xb32_in1k'),
        ({'backbone': 'nowhere.py'}, FileNotFoundError, 'nowhere.py'),
        ({'config': 'nowhere.py'}, FileNotFoundError, 'nowhere.py'),
        ({'config': 'headless.py'}, ValueError, 'model.novel_head.num_classes'),
    ],
)
def test_options_are_checked_before_an_image_is_read(tmp_path, monkeypatch, changes, error, match):
    monkeypatch.chdir(tmp_path)
    for name in ('known', 'all'):
        (tmp_path / name).mkdir()
    (tmp_path / 'headless.py').write_text("model = dict(type='X')")
    with pytest.raises(error, match=match):
        Options(**{'labelled': 'known', 'unlabelled': 'all', **changes}).check(tmp_path / 'out')


@pytest.mark.parametrize('out', ['all', 'all/out', 'known/cat/out'])
def test_results_do_not_lie_among_the_images(tmp_path, out):
    for name in ('known', 'all'):
        (tmp_path / name).mkdir()
    options = Options(str(tmp_path / 'known'), str(tmp_path / 'all'))
    with pytest.raises(ValueError, match='--out: expected a folder outside of the images'):
        options.check(tmp_path / out)
    options.check(tmp_path / 'out')


def test_cost_grows_with_what_is_asked_for(images, recipe):
    found = images(8, 60, num_labelled=30)
    one = forecast(recipe, found, finds_number=False, looks=False)
    assert one.seconds > 0
    # Per epoch 60 images with the teacher and half of 30; three discoveries and the representation: 60 more.
    passes = {
        name: cost.seconds / cost.seconds_per_image
        for name, cost in (('one', one), ('three', forecast(recipe, found, finds_number=True, looks=True)))
    }
    assert passes['three'] > 2 * passes['one'] > 2 * 16 * 60
    wide = replace(recipe, backbone={**recipe.backbone, 'channels': [64, 128]}, discovery_batch_size=512)
    assert forecast(wide, found, finds_number=False, looks=False).num_bytes > one.num_bytes + 2**26


# --------------------------------------------------------------------------------------------------
# The folder.


def test_images_come_back(tmp_path):
    names = ['a b', 'quo"te', '文', os.fsdecode(b'\xff\xfe'), 'line\nbreak']
    images = FolderImages(names, [0, 1, -1, -1, -1], ['x', '文'], [8] * 5, True, [(names[3], 'cut off')])
    folder = OutFolder(tmp_path)
    assert folder.read_images() is None
    folder.write_images(images)
    assert folder.read_images() == images
    assert folder.read_recipe() is None


def test_a_config_that_is_there_stays(tmp_path):
    folder = OutFolder(tmp_path)
    folder.write_config('stage_one', {'a': 1, 'path': '/out {{ x }} "q"'})
    folder.write_config('stage_one', {'a': 2})
    assert 'a = 1' in folder.config('stage_one').read_text()
    assert Config.fromfile(folder.config('stage_one'), use_predefined_variables=False).path == '/out {{ x }} "q"'


def test_novel_names_differ_from_known_ones():
    assert novel_class_names(['cat'], 2) == ['new 1', 'new 2']
    assert novel_class_names(['new 2', 'new new 1'], 2) == ['new new new 1', 'new new new 2']
    assert novel_class_names(['new 2'], 0) == []
