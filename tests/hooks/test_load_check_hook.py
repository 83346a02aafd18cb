import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmkd_ext.hooks import LoadCheckHook


class _Net(BaseModel):
    def __init__(self, width=3, with_head=True):
        super().__init__()
        self.backbone = nn.Linear(2, width)
        if with_head:
            self.head = nn.Linear(width, 2)

    def forward(self, inputs, mode='loss', **kwargs):
        features = self.backbone(torch.stack(list(inputs)))
        return {'loss': features.sum()} if mode == 'loss' else list(features)


def _runner(tmp_path, load_from, new=(), resume=False):
    data = dict(
        dataset=[dict(inputs=torch.ones(2))] * 2, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2
    )
    return Runner(
        model=_Net(),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=data,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        custom_hooks=[LoadCheckHook(new=new)],
        load_from=str(load_from),
        resume=resume,
        experiment_name=tmp_path.name,
    )


def _save(tmp_path, model):
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'from.pth')
    return tmp_path / 'from.pth'


def test_a_fitting_checkpoint_passes(tmp_path):
    _runner(tmp_path, _save(tmp_path, _Net())).train()


def test_training_may_start_without_the_parts_that_it_adds(tmp_path):
    _runner(tmp_path, _save(tmp_path, _Net(with_head=False)), new=['head']).train()


def test_other_parts_may_not_be_missing(tmp_path):
    with pytest.raises(RuntimeError, match=r"lacks 2 of its 4 entries \['head.weight', 'head.bias'\]"):
        _runner(tmp_path, _save(tmp_path, _Net(with_head=False))).train()


def test_other_shapes_are_refused_and_named(tmp_path):
    message = r'3 of other shapes .*backbone.weight \(5, 2\) instead of \(3, 2\).*same architecture'
    with pytest.raises(RuntimeError, match=message):
        _runner(tmp_path, _save(tmp_path, _Net(width=5)), new=['head']).train()


def test_evaluation_needs_the_new_parts_too(tmp_path):
    runner = _runner(tmp_path, _save(tmp_path, _Net(with_head=False)), new=['head'])
    with pytest.raises(RuntimeError, match='lacks 2 of its 4'):
        runner.load_or_resume()
