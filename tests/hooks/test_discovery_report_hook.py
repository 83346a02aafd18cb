import csv
import json
import logging
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset

from mmkd_ext.hooks import DiscoveryReportHook
from mmkd_ext.visualization import markdown_report as report
from runners import runner_case

KNOWN, NOVEL, SIDE = 2, 3, 8
CLASSES = ('ant', 'bee', 'cat', 'dog', 'elk')


class Stripes(Dataset):
    """Class c lights up row c of the image; the first 12 samples are unlabelled training images of novel classes."""

    metainfo: ClassVar = {'classes': CLASSES, 'num_known': KNOWN}

    def __len__(self):
        return 32

    def __getitem__(self, index):
        split, sample_idx = ('unlabelled_train', index) if index < 12 else ('test', index - 12)
        label = KNOWN + index % NOVEL if index < 12 else index % 5
        image = torch.full((3, SIDE, SIDE), 20 + index, dtype=torch.uint8)
        image[:, label] = 255
        sample = BaseDataElement(metainfo={'sample_idx': sample_idx, 'split_name': split})
        sample.gt_label = torch.tensor([label])
        return {'inputs': image, 'data_samples': sample}


class StripeModel(BaseModel):
    """Finds the bright row; head 1 is right up to a permutation of clusters, head 0 and head 1 swap two of them."""

    def __init__(self, has_novel_head=True):
        super().__init__()
        self.has_novel_head = has_novel_head
        self.embedding = nn.Identity()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        rows = torch.stack(list(inputs)).float()[:, 0, :, 1] if isinstance(inputs, list) else inputs.float()[:, 0, :, 1]
        features = self.embedding(rows * self.scale / 255)
        if mode == 'loss':
            return {'loss_cluster': (self.scale - 3.0) ** 2}
        for sample, feature in zip(data_samples, features, strict=True):
            sample.known_logits = feature[:KNOWN]
            if self.has_novel_head:
                novel = feature[KNOWN : KNOWN + NOVEL]
                sample.novel_logits = torch.stack([novel.roll(1), novel.roll(2)])
                sample.head_objective = torch.tensor([2.0, 1.0])
                scores = torch.cat([feature[:KNOWN], novel.roll(2)])
                sample.pred_score = (scores / 0.1).softmax(0)
        return data_samples


def make_runner(case, work_dir, epochs=2, resume=False, model=None, hook=None, val_interval=1, **kwargs):
    def loader():
        return {
            'batch_size': 5,
            'num_workers': 0,
            'dataset': Stripes(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'pseudo_collate'},
        }

    settings = {
        'train_dataloader': loader(),
        'train_cfg': {'by_epoch': True, 'max_epochs': epochs, 'val_interval': val_interval},
        'val_dataloader': loader(),
        'val_cfg': {},
        'val_evaluator': {'type': 'mmkd_ext.NovelClassMetric', 'num_known': KNOWN},
        'test_dataloader': loader(),
        'test_cfg': {},
        'test_evaluator': {'type': 'mmkd_ext.NovelClassMetric', 'num_known': KNOWN},
        'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 1}},
        'custom_hooks': [hook or DiscoveryReportHook(images_per_class=3)],
        'randomness': {'seed': 7},
    }
    settings = {**settings, **kwargs}
    return case.build(model=model or StripeModel(), work_dir=work_dir, resume=resume, **settings)


class KilledError(Exception):
    pass


class KillInThirdEpoch(Hook):
    """The last validation is then younger than the last checkpoint."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.epoch == 2:
            raise KilledError


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes most of the time; these tests are about the rest."""
    monkeypatch.setattr(report, 'report_figures', lambda *args, **kwargs: iter(()))
    monkeypatch.setattr(report, 'history_figure', lambda *args: None)


class Messages(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """One whole run: its folder, what reached the visualiser, and what was logged."""
    folder, shown, messages = tmp_path_factory.mktemp('run'), [], Messages()
    add_image = Visualizer.add_image

    def spy(self, name, image, step=0):
        shown.append((name, image, step))
        add_image(self, name, image, step)

    with runner_case() as case, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Visualizer, 'add_image', spy)
        backends = [{'type': 'LocalVisBackend'}, {'type': 'TensorboardVisBackend'}]
        runner = make_runner(case, folder, visualizer={'type': 'Visualizer', 'vis_backends': backends})
        runner.logger.addHandler(messages)
        runner.train()
    return folder / 'report', shown, messages.texts


def test_last_validation_writes_the_report(finished):
    folder, shown, _ = finished
    pictures = {'confusion.png', 'confusion_test.png', 'gallery.png', 'embedding_map.png', 'curves.png'}
    texts = {'report.md', 'metrics.json', 'assignments.csv', 'curves.json'}
    assert {path.name for path in folder.iterdir()} == pictures | texts
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
    assert {f'{name.removeprefix("report_")}.png' for name, _, _ in shown} == pictures
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 and step == 14 for _, image, step in shown)


def test_pictures_reach_the_files_of_the_backends(finished):
    work_dir = finished[0].parent
    names = {path.name for path in work_dir.glob('*/vis_data/vis_image/*.png')}
    pictures = ('confusion', 'confusion_test', 'gallery', 'embedding_map', 'curves')
    assert names == {f'report_{name}_14.png' for name in pictures}
    events = EventAccumulator(str(next(work_dir.glob('*/vis_data/events*'))))
    events.Reload()
    assert set(events.Tags()['images']) == {f'report_{name}' for name in pictures}


def test_assignments_list_every_sample_with_the_best_heads_cluster(finished):
    with (finished[0] / 'assignments.csv').open() as file:
        rows = list(csv.DictReader(file))
    expected = [('unlabelled_train', i) for i in range(12)] + [('test', i) for i in range(20)]
    assert [(row['split'], int(row['sample_idx'])) for row in rows] == expected
    # Head 1 has the lower objective and answers with its clusters rolled by two.
    first = rows[0]
    assert (first['true_class'], first['cluster'], first['matched_class']) == ('cat', 'cluster 2', 'cat')
    assert all(row['matched_class'] == row['true_class'] for row in rows)
    assert all(0 < float(row['confidence']) <= 1 for row in rows)


def test_numbers_and_settings_are_those_of_the_run(finished):
    content = json.loads((finished[0] / 'metrics.json').read_text())
    assert content['metrics']['unlabelled_train/novel_acc'] == 100
    assert content['metrics']['test/v2_all_heads'] == [100, 100]
    assert content['settings']['seed'] == 7
    assert content['settings']['iteration'] == 14
    assert content['settings']['checkpoint'].endswith('epoch_2.pth')
    page = (finished[0] / 'report.md').read_text()
    assert '![gallery](gallery.png)' in page
    assert '| `novel_acc` | 100.00 | 100.00 |' in page


def test_console_summary_names_the_report(finished):
    folder, _, messages = finished
    summary = next(message for message in messages if 'Discovery finished' in message)
    assert 'unlabelled_train: 100.0% of 12 images' in summary
    assert str(folder / 'report.md') in summary


@pytest.mark.usefixtures('without_pictures')
def test_only_the_last_validation_reports(case, tmp_path):
    hook = DiscoveryReportHook()
    runner = make_runner(case, tmp_path, epochs=3, hook=hook)
    reports_after = []
    finish = hook._finish
    hook._finish = lambda *args: (reports_after.append((runner.epoch, hook._collector is not None)), finish(*args))
    runner.train()
    assert reports_after == [(1, False), (2, False), (3, True)]


@pytest.mark.usefixtures('without_pictures')
def test_test_run_reports(case, tmp_path):
    make_runner(case, tmp_path).test()
    assert (tmp_path / 'report/report.md').is_file()
    assert not (tmp_path / 'report/curves.json').exists()


@pytest.mark.usefixtures('without_pictures')
def test_curves_survive_a_stop_between_validations(case, tmp_path):
    make_runner(case, tmp_path / 'whole', epochs=4).train()
    runner = make_runner(case, tmp_path / 'cut', epochs=4)

    runner.register_hook(KillInThirdEpoch())
    with pytest.raises(KilledError):
        runner.train()
    resumed = make_runner(case, tmp_path / 'cut', epochs=4, resume=True)
    resumed.train()

    whole, cut = (json.loads((tmp_path / name / 'report/curves.json').read_text()) for name in ('whole', 'cut'))
    assert [progress for progress, _ in whole['losses']['loss_cluster']] == [1, 2, 3, 4]
    assert [progress for progress, _ in whole['metrics']['test/v2_all']] == [1, 2, 3, 4]
    assert cut == whole


@pytest.mark.usefixtures('without_pictures')
def test_new_training_in_an_old_folder_starts_new_curves(case, tmp_path):
    make_runner(case, tmp_path, epochs=3).train()
    make_runner(case, tmp_path, epochs=1).train()
    curves = json.loads((tmp_path / 'report/curves.json').read_text())
    assert [progress for progress, _ in curves['metrics']['test/v2_all']] == [1]


def test_unwritable_folder_fails_before_training(case, tmp_path):
    (tmp_path / 'file').write_text('')
    model = StripeModel()
    runner = make_runner(
        case, tmp_path, model=model, hook=DiscoveryReportHook(out_dir=str(tmp_path / 'file' / 'report'))
    )
    with pytest.raises(OSError, match=r'folder .*got .*file/report'):
        runner.train()
    assert runner.iter == 0
    assert model.scale.item() == 1


def test_unknown_tap_fails_before_training(case, tmp_path):
    runner = make_runner(case, tmp_path, hook=DiscoveryReportHook(tap='embeding'))
    with pytest.raises(KeyError, match=r"embeding.*'embedding'"):
        runner.train()


@pytest.mark.usefixtures('without_pictures')
def test_model_without_novel_head_is_skipped(case, tmp_path, caplog):
    runner = make_runner(case, tmp_path, epochs=1, model=StripeModel(has_novel_head=False))
    with caplog.at_level(logging.INFO, logger=runner.logger.name):
        runner.logger.addHandler(caplog.handler)
        runner.train()
    assert sum('nothing to report' in message for message in caplog.messages) == 1
    assert not (tmp_path / 'report/report.md').exists()


@pytest.mark.usefixtures('without_pictures')
def test_run_that_ends_without_validation_says_so(case, tmp_path, caplog):
    runner = make_runner(case, tmp_path, epochs=1, val_dataloader=None, val_cfg=None, val_evaluator=None)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert any('test the checkpoint' in message for message in caplog.messages)


@pytest.mark.usefixtures('without_pictures')
def test_missing_split_falls_back_with_a_warning(case, tmp_path, caplog):
    runner = make_runner(case, tmp_path, epochs=1, hook=DiscoveryReportHook(split='elsewhere'))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert any("expected samples of split 'elsewhere'" in message for message in caplog.messages)
    assert (tmp_path / 'report/report.md').is_file()


def test_shuffled_evaluation_data_is_refused(case, tmp_path):
    loader = {
        'batch_size': 5,
        'num_workers': 0,
        'dataset': Stripes(),
        'sampler': DefaultSampler(Stripes(), shuffle=True, seed=0),
        'collate_fn': {'type': 'pseudo_collate'},
    }
    with pytest.raises(RuntimeError, match=r'DefaultSampler\(shuffle=False\)'):
        make_runner(case, tmp_path, epochs=1, val_dataloader=loader).train()
    assert (tmp_path / 'report/metrics.json').is_file()


def test_bad_argument():
    with pytest.raises(ValueError, match=r'DiscoveryReportHook: .*max_points .*got 0'):
        DiscoveryReportHook(max_points=0)
