"""Distillation in mmsegmentation: the shipped config at a tiny size, on images that the test writes."""

import json
import math
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.models.teacher import build_model_from_config, read_config

mmseg = pytest.importorskip('mmseg')
pytestmark = pytest.mark.usefixtures('one_thread')

SHIPPED = Path(__file__).parents[2] / 'configs/mmseg/mmseg_rkd-sp_pspnet-r18_80k_cityscapes.py'
MMSEG = Path(mmseg.__path__[0], '.mim')
SIZE, CLASSES, ITERATIONS = 64, 19, 3


def _shrink(path, data_root, backbone_width):
    """A config of PSPNet on Cityscapes with 1/8 of its width, small images and a short schedule."""
    cfg = read_config(path)
    cfg.merge_from_dict(
        {
            'data_preprocessor.size': (SIZE, SIZE),
            'model.data_preprocessor.size': (SIZE, SIZE),
            'model.pretrained': None,
            'model.backbone.stem_channels': 8,
            'model.backbone.base_channels': 8,
            'model.decode_head.in_channels': backbone_width,
            'model.decode_head.channels': 8,
            'model.auxiliary_head.in_channels': backbone_width // 2,
            'model.auxiliary_head.channels': 8,
            'train_dataloader.dataset.data_root': str(data_root),
            'train_dataloader.dataset.pipeline.2.scale': (SIZE, SIZE),
            'train_dataloader.dataset.pipeline.3.crop_size': (SIZE, SIZE),
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader.dataset.data_root': str(data_root),
            'val_dataloader.dataset.pipeline.1.scale': (SIZE, SIZE),
            'val_dataloader.num_workers': 0,
            'val_dataloader.persistent_workers': False,
            'train_cfg.max_iters': ITERATIONS,
            'default_hooks.logger.interval': 1,
        }
    )
    return cfg


@pytest.fixture(scope='module')
def cityscapes(tmp_path_factory):
    """Four images to train on and one to validate on, in the layout of the real data."""
    folder = tmp_path_factory.mktemp('cityscapes')
    rng = np.random.default_rng(0)
    for split, count in {'train': 4, 'val': 1}.items():
        for i in range(count):
            image = rng.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)
            mask = np.kron(rng.integers(CLASSES, size=(4, 4), dtype=np.uint8), np.ones((16, 16), np.uint8))
            mmcv.imwrite(image, str(folder / f'leftImg8bit/{split}/town/{i}_leftImg8bit.png'))
            mmcv.imwrite(mask, str(folder / f'gtFine/{split}/town/{i}_gtFine_labelTrainIds.png'))
    return folder


@pytest.fixture(scope='module')
def configs(cityscapes, tmp_path_factory):
    """A folder with configs of the plain student, of the same with the hook as shipped, and of the teacher."""
    folder = tmp_path_factory.mktemp('configs')
    student = _shrink(SHIPPED, cityscapes, backbone_width=64)
    hooks = student.pop('custom_hooks')
    student.dump(folder / 'plain.py')
    teacher = hooks[0].teacher
    _shrink(teacher.config, cityscapes, backbone_width=256).dump(folder / 'teacher.py')
    torch.save(build_model_from_config(folder / 'teacher.py').state_dict(), folder / 'teacher.pth')
    teacher.update(config=str(folder / 'teacher.py'), checkpoint=str(folder / 'teacher.pth'))
    hooks = f"_base_ = 'plain.py'\ncustom_hooks = {hooks!r}\n"
    (folder / 'distilled.py').write_text(hooks)
    (folder / 'with_imports.py').write_text(f"{hooks}custom_imports = dict(imports=['mmkd_ext'])\n")
    return folder


def test_the_added_lines_are_few():
    base, *added = [line for line in SHIPPED.read_text().rpartition('"""')[2].splitlines() if line]
    assert base.startswith('_base_')
    assert len(added) <= 10


def test_the_teacher_stays_and_the_checkpoint_is_that_of_a_plain_run(configs, train, teachers, load_in_plain_host):
    plain_losses, plain = train(Config.fromfile(configs / 'plain.py'), configs / 'plain')
    losses, distilled = train(Config.fromfile(configs / 'with_imports.py'), configs / 'distilled')
    assert losses['decode.loss_ce'][0] == plain_losses['decode.loss_ce'][0]
    assert list(distilled) == list(plain)
    assert not torch.equal(distilled['decode_head.conv_seg.weight'], plain['decode_head.conv_seg.weight'])
    checkpoint = configs / f'distilled/iter_{ITERATIONS}.pth'
    assert load_in_plain_host(configs / 'plain.py', checkpoint) == list(plain)

    (teacher,) = teachers
    before, after = load_checkpoint_safely(configs / 'teacher.pth'), teacher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_launcher_of_mmsegmentation_trains_it_without_custom_imports(configs):
    work_dir = configs / 'launched'
    command = [sys.executable, MMSEG / 'tools/train.py', configs / 'distilled.py', '--work-dir', work_dir]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    log = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    steps = [json.loads(line) for line in log if 'loss' in line]
    assert len(steps) == ITERATIONS
    for term in ('loss_sp', 'loss_rkd'):
        assert all(math.isfinite(step[term]) and step[term] > 0 for step in steps)


def test_a_teacher_of_mmpretrain_teaches_a_student_of_mmseg(configs, train, teachers):
    teacher = dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        backbone=dict(type='ResNet', depth=50, stem_channels=8, base_channels=8),
        data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    )
    term = dict(student='backbone[-1]', teacher='backbone', loss=dict(type='mmkd_ext.SPLoss'))
    cfg = Config.fromfile(configs / 'plain.py')
    cfg.custom_hooks = [
        dict(type='mmkd_ext.DistillHook', teacher=dict(model=teacher, checkpoint=None), terms=dict(sp=term))
    ]
    losses, _ = train(cfg, configs / 'mixed')
    assert type(teachers[0]).__module__.startswith('mmpretrain')
    assert np.isfinite(losses['loss_sp']).all()
    assert (losses['loss_sp'] > 0).all()


def test_two_images_have_one_distance_and_nothing_to_compare_but_their_positions_do(configs, train):
    cfg = Config.fromfile(configs / 'distilled.py')
    cfg.train_dataloader.batch_size = 2
    term = dict(tap='decode_head.conv_seg:in', loss=dict(type='mmkd_ext.RKDDistanceLoss'))
    cfg.custom_hooks[0].terms = dict(images=term, positions=dict(tokens=16, **term))
    losses, _ = train(cfg, configs / 'two')
    assert np.abs(losses['loss_images']).max() < 1e-9
    assert losses['loss_positions'].min() > 1e-3


def test_mmseg_never_calls_the_decode_head_as_a_module(configs, train):
    cfg = Config.fromfile(configs / 'distilled.py')
    cfg.custom_hooks[0].terms.rkd.tap = 'decode_head'
    with pytest.raises(RuntimeError, match=r"tap 'decode_head' expected to fire once .* tap one of its children"):
        train(cfg, configs / 'broken')
