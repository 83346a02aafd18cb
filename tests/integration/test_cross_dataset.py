"""reproduce/cross_dataset.py: models that others trained, on data sets that they have not seen."""

import json

import pytest
import torch
from matplotlib.image import imread
from mmengine.config import Config
from mmengine.registry import init_default_scope

import cross_dataset
from mmkd_ext.models.build import build_model_from_config
from mmkd_ext.scores.retrieval import recall_at_k

CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(4, 8)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mmkd_ext.EmbeddingHead', in_channels=8, embedding_dims={dims}),
    data_preprocessor=dict(mean=[77.7], std=[95.8]))
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmkd_ext.Digits', split='{split}', indices=250, pipeline=[dict(type='PackInputs')]))
"""


@pytest.fixture
def arguments(tmp_path):
    """Two models, one of them also by its pooled features, and two data sets."""
    for name, dims, split in (('a', 6, 'train'), ('b', 3, 'test')):
        (tmp_path / f'{name}.py').write_text(CONFIG.format(dims=dims, split=split))
        torch.manual_seed(dims)
        torch.save(
            {'state_dict': build_model_from_config(tmp_path / f'{name}.py').state_dict()}, tmp_path / f'{name}.pth'
        )
    a, b = str(tmp_path / 'a.py'), str(tmp_path / 'b.py')
    models = (
        ['teacher', a, a.replace('.py', '.pth')],
        ['student', b, b.replace('.py', '.pth')],
        ['raw', a, 'none', 'neck'],
    )
    command = ['--data', 'train', a, '--data', 'test', b, '--topk', '1', '5', '--out', str(tmp_path / 'out')]
    return [word for words in models for word in ('--model', *words)] + command


def test_table_picture_and_numbers(arguments, tmp_path, capsys):
    cross_dataset.main(arguments)
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert list(metrics) == ['teacher', 'student', 'raw']
    assert all(list(row) == ['train', 'test'] for row in metrics.values())
    assert len({row['train']['recall@5'] for row in metrics.values()}) == 3
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert table.splitlines()[0] == '| recall@1 | train | test |'
    assert f'| student | {metrics["student"]["train"]["recall@1"]:.2f} |' in table
    assert table in capsys.readouterr().out
    assert imread(tmp_path / 'out' / 'recall.png').ndim == 3


def test_number_of_a_cell(arguments, tmp_path):
    """Embedded by hand: the student on the data of the other config."""
    from sklearn.datasets import load_digits

    cross_dataset.main(arguments)
    found = json.loads((tmp_path / 'out' / 'metrics.json').read_text())['student']['train']
    model = build_model_from_config(tmp_path / 'b.py').eval()
    model.load_state_dict(torch.load(tmp_path / 'b.pth', weights_only=True)['state_dict'])
    dataset = Config.fromfile(tmp_path / 'a.py').test_dataloader.dataset
    init_default_scope('mmpretrain')
    from mmengine.registry import DATASETS

    items = list(DATASETS.build(dataset))
    assert len(items) == 250
    assert len(load_digits().target) > 250
    images = (torch.stack([item['inputs'] for item in items]).float() - 77.7) / 95.8
    labels = torch.cat([item['data_samples'].gt_label for item in items])
    with torch.no_grad():
        recall = recall_at_k(model(images, mode='tensor'), labels, ks=(1, 5))
    assert [found['recall@1'], found['recall@5']] == pytest.approx([100 * recall[1], 100 * recall[5]])


def test_a_bare_backbone(tmp_path):
    """Its eval() returns nothing."""
    (tmp_path / 'c.py').write_text("model = dict(type='mmpretrain.ResNet', depth=18, base_channels=4)")
    model = cross_dataset.build(cross_dataset.ModelSpec('bare', str(tmp_path / 'c.py'), 'none'))
    assert not model.training


@pytest.mark.parametrize(
    ('extra', 'message'),
    [
        (['--model', 'x', 'c.py'], 'expected name, config, checkpoint and perhaps a tap'),
        (['--model', 'teacher', 'c.py', 'none'], '--model: expected names that differ'),
        (['--data', 'test', 'c.py'], '--data: expected names that differ'),
    ],
)
def test_wrong_words(arguments, extra, message, capsys):
    with pytest.raises(SystemExit):
        cross_dataset.parse_args([*arguments, *extra])
    assert message in capsys.readouterr().err


def test_weights_of_another_model(arguments, tmp_path):
    (tmp_path / 'a.pth').write_bytes((tmp_path / 'b.pth').read_bytes())
    with pytest.raises(RuntimeError, match=r'teacher: .*ImageClassifier'):
        cross_dataset.main(arguments)
