"""Checkpoints, configs and other files of released versions are read for ever: ``tests/golden/frozen_*/README.md``."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.clustering import NumClasses
from mmkd_ext.discover import DiscoveryInferencer, Options, Steps
from mmkd_ext.models.build import build_model_from_config
from mmkd_ext.models.teacher import build_teacher

pytestmark = pytest.mark.usefixtures('one_thread')

VERSIONS = sorted((Path(__file__).parents[1] / 'golden').glob('frozen_*'))
# The same networks in float64 answer within 3e-7; probabilities are those of ten times the logits.
NOISE = dict(rtol=1e-6, atol=2e-6)


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name, autouse=True)
def folder(request, tmp_path, monkeypatch):
    """A copy of the files in the working directory, as their own relative paths want it."""
    folder = tmp_path / request.param.name
    shutil.copytree(request.param, folder)
    monkeypatch.chdir(folder)
    return folder


class FirstMoment(Hook):
    """What a resumed run has before its first iteration."""

    priority = 'VERY_HIGH'

    def before_train(self, runner):
        self.epoch, self.iter, self.lr = runner.epoch, runner.iter, runner.optim_wrapper.get_lr()['lr'][0]
        self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
        states = runner.optim_wrapper.optimizer.state_dict()['state']
        self.optimizer = {key: {k: torch.as_tensor(v).clone() for k, v in of.items()} for key, of in states.items()}


def resume(name, epoch):
    """Go on with a frozen training from its checkpoint; the finished runner, and what it had at first."""
    cfg = Config.fromfile(f'{name}.py')
    work_dir = Path(cfg.work_dir).absolute()
    work_dir.mkdir(parents=True)
    shutil.copy(f'{name}.pth', work_dir / f'epoch_{epoch}.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / f'epoch_{epoch}.pth'))
    cfg.update(resume=True, load_from=None)  # as tools/train.py --resume does
    runner, first = Runner.from_cfg(cfg), FirstMoment()
    runner.register_hook(first)
    runner.train()
    return runner, first


def assert_state_is_the_files(first, name):
    saved = load_checkpoint_safely(f'{name}.pth')
    assert (first.epoch, first.iter) == (saved['meta']['epoch'], saved['meta']['iter'])
    assert first.weights.keys() == saved['state_dict'].keys()
    assert all(torch.equal(value, saved['state_dict'][key]) for key, value in first.weights.items())
    for key, state in saved['optimizer']['state'].items():
        assert all(torch.equal(first.optimizer[key][part], torch.as_tensor(value)) for part, value in state.items())
    assert first.lr == saved['optimizer']['param_groups'][0]['lr']


def logged(runner):
    scalars = runner.message_hub.log_scalars.items()
    return {name.removeprefix('train/'): log.data[0] for name, log in scalars if name.startswith('train/')}


def test_a_discovery_goes_on_where_it_was(folder):
    runner, first = resume('discovery', 2)
    assert_state_is_the_files(first, 'discovery')
    assert (runner.epoch, runner.iter) == (3, 3 * first.iter // 2)
    losses = logged(runner)
    for name in ('loss_cluster', 'loss_crkd'):
        assert len(losses[name]) == runner.iter, 'the history of the first epochs is lost'
        assert np.isfinite(losses[name]).all()
    assert (folder / 'runs/discovery/report/report.md').is_file()
    assert runner.model.state_dict().keys() == load_checkpoint_safely('runs/discovery/epoch_3.pth')['state_dict'].keys()


def test_a_distillation_goes_on_with_its_cache_its_superclasses_and_its_choice_of_layers(folder):
    files = [
        *Path('teacher_cache').glob('*.npy'),
        Path('teacher_cache/meta.json'),
        Path('superclasses/superclasses.json'),
    ]
    before = [path.read_bytes() for path in files]
    runner, first = resume('relation', 1)
    assert_state_is_the_files(first, 'relation')
    assert [path.read_bytes() for path in files] == before
    saved, last = (load_checkpoint_safely(name) for name in ('relation.pth', 'runs/relation/epoch_2.pth'))
    assert last['distillation'].keys() == saved['distillation'].keys()
    losses = logged(runner)
    assert len(losses['loss_cc']) == len(losses['loss_sp']) == runner.iter == 4


@pytest.mark.usefixtures('host_scope')
def test_networks_answer_as_they_did():
    expected = np.load('expected.npz')
    dataset = Runner.build_dataloader(Config.fromfile('discovery.py').test_dataloader).dataset
    samples = [dataset[int(index)] for index in np.linspace(0, len(dataset) - 1, 16)]
    np.testing.assert_array_equal([sample['inputs'].numpy() for sample in samples], expected['images'])
    for name in ('stage_one', 'discovery'):
        model = build_model_from_config(f'{name}.py').eval()
        model.load_state_dict(load_checkpoint_safely(f'{name}.pth')['state_dict'])
        with torch.no_grad():
            answers = model.test_step(pseudo_collate(samples))
        keys = [key for key in expected.files if key.startswith(f'{name}/')]
        assert f'{name}/known_logits' in keys
        for key in keys:
            found = torch.stack([answer.get(key.rpartition('/')[2]) for answer in answers])
            np.testing.assert_allclose(found.numpy(), expected[key], err_msg=key, **NOISE)


def test_a_teacher_teaches_as_it_did():
    expected, student = np.load('expected.npz'), build_model_from_config('discovery.py')
    batch = student.data_preprocessor({'inputs': list(torch.from_numpy(expected['images']))})
    spec = dict(config='stage_one.py', checkpoint='stage_one.pth')
    teacher = build_teacher(spec, ['known_head'], student).frozen
    logits = teacher.features(batch['inputs'], mode='tensor')['known_head']
    np.testing.assert_allclose(logits[0].numpy(), expected['stage_one/known_logits'], **NOISE)


def test_a_discovered_folder_answers_as_it_did():
    answers = json.loads(Path('discovered_answers.json').read_text())
    found = DiscoveryInferencer('discovered')(list(answers))
    for answer, expected in zip(found, answers.values(), strict=True):
        assert answer['pred_class'] == expected['pred_class']
        np.testing.assert_allclose(answer['pred_scores'], expected['pred_scores'], **NOISE)
        np.testing.assert_allclose(answer['distance'], expected['distance'], **NOISE)


def test_a_finished_discovery_is_reported_again_without_training():
    with open('discovered/assignments.csv', newline='') as file:
        before = [(row['path'], row['cluster']) for row in csv.DictReader(file)]
    said = []
    Steps(Options('images/known', 'images/all', epochs=2), 'discovered', say=said.append, resume=True).run()
    assert said[-1] == 'Writing assignments.csv and report.html'
    assert not any('(Cr-KD)' in line or 'Learning' in line for line in said)
    with open('discovered/assignments.csv', newline='') as file:
        assert [(row['path'], row['cluster']) for row in csv.DictReader(file)] == before


def test_an_estimated_number_of_classes_is_read():
    found = NumClasses.from_dict(json.loads(Path('num_classes.json').read_text()))
    assert (found.estimate, found.num_known, found.num_novel) == (6, 5, 1)
    assert [point.num_classes for point in found.curve] == list(range(5, 13))
