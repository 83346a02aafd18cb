"""tools/num_classes.py and tools/estimate_num_classes.py: from a representation to the number in a config."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

import estimate_num_classes
import num_classes
from mmkd_ext.clustering.num_classes import NumClasses
from mmkd_ext.models.teacher import build_model_from_config
from stages import find_stages

pytestmark = pytest.mark.usefixtures('one_thread')

CONFIGS = Path(__file__).parents[2] / 'configs'
AUTO = CONFIGS / 'gcd/gcd-crkd-auto_convnet_80e_digits-ncd.py'
REPRESENTATION = CONFIGS / 'gcd/gcd-representation_convnet_80e_digits-ncd.py'


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights where the representation would have left its own."""
    path = tmp_path / 'epoch_80.pth'
    torch.save({'state_dict': build_model_from_config(REPRESENTATION).state_dict()}, path)
    return path


@pytest.fixture
def auto(checkpoint, tmp_path):
    cfg = Config.fromfile(AUTO)
    cfg.num_classes_from.checkpoint = str(checkpoint)
    cfg.work_dir = str(tmp_path / 'run')
    return cfg


def write(folder, num_novel):
    Path(folder).mkdir(exist_ok=True)
    Path(folder, num_classes.FILE).write_text(json.dumps({'num_novel': num_novel}))


def test_the_representation_is_a_stage():
    stages = find_stages(Config.fromfile(AUTO))
    assert any(config.endswith(REPRESENTATION.name) for config in stages.values())
    assert len(stages) == 2


def test_features_are_those_of_evaluation_and_labels_those_of_training(checkpoint):
    features, labels = num_classes.training_features(str(REPRESENTATION), str(checkpoint))
    assert features.shape == (1201, 64)
    again, _ = num_classes.training_features(str(REPRESENTATION), str(checkpoint))
    assert np.array_equal(features, again)  # no random view
    assert sorted(np.unique(labels)) == [-1, 0, 1, 2, 3, 4]
    assert (labels < 0).sum() == 602


def test_auto_becomes_a_number_that_resuming_and_evaluation_find(auto, monkeypatch):
    asked = []

    def estimate(features, labels, progress):
        asked.append(features.shape)
        return NumClasses(12, 5, 11, 12, (11, 12), ())

    monkeypatch.setattr(num_classes, 'estimate_num_classes', estimate)
    num_classes.resolve_num_classes(auto)
    assert auto.model.novel_head.num_classes == 7
    assert asked == [(1201, 64)]

    resumed = Config.fromfile(AUTO)
    resumed.update(work_dir=auto.work_dir, resume=True)
    num_classes.resolve_num_classes(resumed)
    assert resumed.model.novel_head.num_classes == 7
    assert len(asked) == 1
    evaluated = Config.fromfile(AUTO)
    num_classes.fill_num_classes(evaluated, auto.work_dir)
    assert evaluated.model.novel_head.num_classes == 7


def test_a_config_with_a_number_is_left_alone(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'crkd/crkd_convnet_80e_digits.py')
    before = cfg.pretty_text
    num_classes.resolve_num_classes(cfg)
    num_classes.fill_num_classes(cfg, tmp_path)
    assert cfg.pretty_text == before


def test_errors(auto, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected num_classes.json beside the checkpoint for'):
        num_classes.fill_num_classes(auto, tmp_path)
    write(auto.work_dir, 0)
    auto.resume = True
    with pytest.raises(ValueError, match='expected at least one novel class but the estimate found none'):
        num_classes.resolve_num_classes(auto)
    auto.pop('num_classes_from')
    with pytest.raises(KeyError, match=r'expected num_classes_from=dict\(config=..., checkpoint=...\) for'):
        num_classes.resolve_num_classes(auto)


def test_the_tool_writes_numbers_and_a_picture(checkpoint, tmp_path, capsys):
    out = tmp_path / 'out'
    estimate_num_classes.main(
        [str(REPRESENTATION), str(checkpoint), '--max-classes', '8', '--max-samples', '150', '--out', str(out)]
    )
    content = json.loads((out / 'num_classes.json').read_text())
    assert content['estimate'] == content['num_known'] + content['num_novel']
    assert 5 <= content['estimate'] <= 8
    assert [point['num_classes'] for point in content['curve']] == [5, 6, 7, 8]
    assert (out / 'num_classes.png').stat().st_size > 1000
    printed = capsys.readouterr().out
    assert f'{content["estimate"]} classes: 5 known' in printed
    assert 'silhouette alone' in printed
