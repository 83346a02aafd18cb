"""Stages of ``mmkd train``: what a recipe needs trained first."""

import pytest
from mmengine.config import Config

from mmkd_ext.cli import train as stages


@pytest.fixture
def recipe():
    stage = dict(config='configs/stage.py', checkpoint='work_dirs/stage/epoch_4.pth')
    return Config(
        dict(
            stage_one=stage,
            load_from=stage['checkpoint'],
            custom_hooks=[dict(type='mmkd_ext.DistillHook', teacher=dict(stage))],
            model=dict(init_cfg=dict(type='Pretrained', checkpoint='other.pth')),
        )
    )


def test_one_checkpoint_named_twice_is_one_stage(recipe):
    assert stages.find_stages(recipe) == {'work_dirs/stage/epoch_4.pth': 'configs/stage.py'}


def test_a_remote_checkpoint_is_no_stage():
    assert stages.find_stages(Config(dict(teacher=dict(config='a.py', checkpoint='https://host/a.pth')))) == {}


def test_a_seed_moves_every_mention_of_the_stage(recipe):
    moved = stages.set_seed(recipe, 3)
    assert moved.randomness.seed == 3
    assert moved.load_from == 'work_dirs/stage-seed3/epoch_4.pth'
    assert moved.custom_hooks[0].teacher.checkpoint == moved.stage_one.checkpoint == moved.load_from
    assert moved.stage_one.config == 'configs/stage.py'


def test_a_checkpoint_cut_off_while_written_is_not_trained(tmp_path):
    checkpoint = tmp_path / 'epoch_4.pth'
    assert not stages.is_trained(str(checkpoint))
    checkpoint.write_bytes(b'half')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    assert not stages.is_trained(str(checkpoint))
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    assert stages.is_trained(str(checkpoint))


def test_a_published_checkpoint_without_history_is_trained(tmp_path):
    (tmp_path / 'teacher.pth').touch()
    assert stages.is_trained(str(tmp_path / 'teacher.pth'))


@pytest.mark.parametrize('name', ['epoch_4.pth', 'best_accuracy.pth'])
def test_an_earlier_or_otherwise_named_checkpoint_of_a_longer_run_is_trained(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_60.pth'))
    assert stages.is_trained(str(tmp_path / name))
