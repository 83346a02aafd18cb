from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from matplotlib.image import imread
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from mmkd_ext import visualization
from mmkd_ext.hooks import NeighbourReportHook

SIZE = 15


class Levels(Dataset):
    """Image i has the grey value 10 i and the class i mod 3."""

    metainfo: ClassVar = {'classes': ('ant', 'bee', 'cat')}

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        sample = BaseDataElement()
        sample.gt_label = torch.tensor([index % 3])
        return {'inputs': torch.full((1, 4, 4), 10 * index, dtype=torch.uint8), 'data_samples': sample}


class Brightness(BaseModel):
    """The embedding is the brightness; with ``modulo``, that of the class."""

    def __init__(self, modulo=0):
        super().__init__()
        self.modulo = modulo
        self.head = nn.Identity()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        images = torch.stack(list(inputs)).float() if isinstance(inputs, list) else inputs.float()
        level = images[:, 0, 0, :1] / 10
        embedding = self.head((level % self.modulo if self.modulo else level) * self.scale)
        if mode == 'loss':
            return {'loss': (self.scale - 3) ** 2}
        if mode == 'tensor':
            return embedding
        for sample, vector in zip(data_samples, embedding, strict=True):
            sample.embedding = vector
        return data_samples


@pytest.fixture(autouse=True)
def brightness():
    ROOT_MODELS.register_module(name='Brightness', module=Brightness, force=True)
    yield
    ROOT_MODELS._module_dict.pop('Brightness')


@pytest.fixture
def drawn(monkeypatch):
    """The rows of every picture, as {query: {model: [(grey value, is wrong), ...]}}."""
    pictures = []

    def record(rows, *, title):
        pictures.append(
            {
                int(row.query.pixels[0, 0, 0]) // 10: {
                    name: [(int(found.pixels[0, 0, 0]) // 10, found.is_wrong) for found in images]
                    for name, images in row.found.items()
                }
                for row in rows
            }
        )
        return real(rows, title=title)

    real = visualization.neighbours_figure
    monkeypatch.setattr(visualization, 'neighbours_figure', record)
    return pictures


def make_runner(case, work_dir, max_epochs=2, **kwargs):
    def loader():
        return {
            'batch_size': 4,
            'num_workers': 0,
            'dataset': Levels(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'pseudo_collate'},
        }

    evaluator = {'type': 'mmkd_ext.RetrievalMetric'}
    return case.build(
        model=Brightness(),
        work_dir=work_dir,
        train_dataloader=loader(),
        train_cfg={'by_epoch': True, 'max_epochs': max_epochs, 'val_interval': 1},
        val_dataloader=loader(),
        val_cfg={},
        val_evaluator=evaluator,
        test_dataloader=loader(),
        test_cfg={},
        test_evaluator=evaluator,
        custom_hooks=[{'type': 'mmkd_ext.NeighbourReportHook', **kwargs}],
        randomness={'seed': 0},
        log_level='WARNING',
    )


TEACHER = {'model': {'type': 'Brightness', 'modulo': 3}, 'checkpoint': None}


def test_test_draws_teacher_beside_student(case, tmp_path, drawn):
    """By brightness the nearest are the next ones, of other classes; by the teacher those of the class, by index."""
    runner = make_runner(case, tmp_path, num_queries=SIZE, num_neighbours=2, teacher=TEACHER, teacher_tap='head')
    runner.test()
    assert imread(tmp_path / 'neighbours.png').ndim == 3
    (picture,) = drawn
    assert list(picture) == list(range(SIZE))
    assert list(picture[7]) == ['teacher', 'student']
    assert picture[7]['student'] == [(6, True), (8, True)]
    assert picture[7]['teacher'] == [(1, False), (4, False)]
    assert picture[1]['teacher'] == [(4, False), (7, False)]


@pytest.mark.parametrize('normalize', [False, True])
def test_the_picture_ranks_as_the_metric_does(case, tmp_path, drawn, normalize):
    """Of length 1 all brightnesses but 0 are equal, and equally near ones come by index."""
    runner = make_runner(case, tmp_path, num_queries=SIZE, num_neighbours=1, normalize=normalize)
    runner.test_evaluator.metrics[0].normalize = normalize
    metrics = runner.test()
    found = [models['student'][0] for models in drawn[0].values()]
    assert metrics['retrieval/recall@1'] == pytest.approx(100 * np.mean([not is_wrong for _, is_wrong in found]))
    assert [level for level, _ in found[1:4]] == ([2, 1, 1] if normalize else [0, 1, 2])


def test_the_teacher_is_normalised_too(case, tmp_path, drawn):
    settings = dict(num_queries=SIZE, num_neighbours=2, teacher=TEACHER, teacher_tap='head', normalize=True)
    make_runner(case, tmp_path, **settings).test()
    assert [level for level, _ in drawn[0][7]['teacher']] == [1, 2]


def test_only_the_last_validation_is_drawn(case, tmp_path, drawn):
    make_runner(case, tmp_path, max_epochs=3, num_queries=4).train()
    assert len(drawn) == 1
    assert len(drawn[0]) == 4
    assert all(list(models) == ['student'] for models in drawn[0].values())


def test_queries_depend_on_the_seed_alone(case, tmp_path, drawn):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        make_runner(case, tmp_path / name, num_queries=5, seed=seed).test()
    assert drawn[0].keys() == drawn[1].keys() != drawn[2].keys()


def test_more_asked_for_than_there_is(case, tmp_path, drawn):
    make_runner(case, tmp_path, num_queries=100, num_neighbours=100).test()
    assert len(drawn[0]) == SIZE
    for query, models in drawn[0].items():
        assert sorted(level for level, _ in models['student']) == [level for level in range(SIZE) if level != query]


def _test_in_process(rank, case, work_dir, init_file):
    torch.distributed.init_process_group('gloo', init_method=f'file://{init_file}', rank=rank, world_size=2)
    runner = make_runner(case, work_dir, num_queries=5, teacher=TEACHER, teacher_tap='head')
    runner.test()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_draw_the_picture_of_one(case, tmp_path):
    context = mp.get_context('fork')
    arguments = (case, tmp_path / 'two', tmp_path / 'init')
    processes = [context.Process(target=_test_in_process, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    make_runner(case, tmp_path / 'one', num_queries=5, teacher=TEACHER, teacher_tap='head').test()
    pictures = [imread(tmp_path / name / 'neighbours.png') for name in ('one', 'two')]
    np.testing.assert_array_equal(*pictures)


def test_a_missing_teacher_shows_before_training(case, tmp_path):
    teacher = {**TEACHER, 'checkpoint': str(tmp_path / 'none.pth')}
    with pytest.raises(FileNotFoundError, match=r'NeighbourReportHook: teacher: .*none.pth'):
        make_runner(case, tmp_path, teacher=teacher, teacher_tap='head').train()


def test_a_wrong_tap_shows_before_training(case, tmp_path):
    with pytest.raises(KeyError, match='NeighbourReportHook: teacher'):
        make_runner(case, tmp_path, teacher=TEACHER, teacher_tap='neck').train()


@pytest.mark.parametrize('name', ['num_queries', 'num_neighbours'])
def test_bad_numbers(name):
    with pytest.raises(ValueError, match=rf'NeighbourReportHook: .*{name} .*got 0'):
        NeighbourReportHook(**{name: 0})


def test_bad_teacher():
    with pytest.raises(TypeError, match=r'NeighbourReportHook: teacher: .*dict'):
        NeighbourReportHook(teacher={'config': 'x.py'})
