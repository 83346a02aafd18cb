import pytest
import torch
from mmengine.model import BaseModel, BaseModule
from torch import nn

from mmkd_ext.hooks import LoadCheckHook


class _Data(list):
    """Two samples; which classes are known stands in ``metainfo``, as in NovelClassSplit."""

    def __init__(self, known=('cat', 'dog')):
        super().__init__([dict(inputs=torch.ones(2))] * 2)
        self.metainfo = dict(classes=(*known, 'novel'), num_known=len(known))


class _Net(BaseModel):
    def __init__(self, width=3, with_head=True, depth=1):
        super().__init__()
        self.backbone = nn.Linear(2, width)
        for i in range(1, depth):
            self.backbone.add_module(f'deeper{i}', nn.Linear(width, width))
        if with_head:
            self.head = nn.Linear(width, 2)

    def forward(self, inputs, mode='loss', **kwargs):
        features = self.backbone(torch.stack(list(inputs)))
        return {'loss': features.sum()} if mode == 'loss' else list(features)


def _loader(known=('cat', 'dog')):
    return dict(dataset=_Data(known), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2)


def _runner(case, tmp_path, load_from=None, new=(), resume=False, **kwargs):
    return case.build(
        model=_Net(),
        work_dir=tmp_path / 'work',
        train_dataloader=_loader(),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        custom_hooks=[LoadCheckHook(new=new)],
        load_from=load_from and str(load_from),
        resume=resume,
        **kwargs,
    )


def _save(tmp_path, model, **meta):
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'from.pth')
    return tmp_path / 'from.pth'


def test_a_fitting_checkpoint_passes(case, tmp_path):
    _runner(case, tmp_path, _save(tmp_path, _Net())).train()


def test_training_may_start_without_the_parts_that_it_adds(case, tmp_path):
    _runner(case, tmp_path, _save(tmp_path, _Net(with_head=False)), new=['head']).train()


def test_other_parts_may_not_be_missing(case, tmp_path):
    with pytest.raises(RuntimeError, match=r"lacks 2 .*\['head.weight', 'head.bias'\]"):
        _runner(case, tmp_path, _save(tmp_path, _Net(with_head=False))).train()


def test_other_shapes_are_refused_and_named(case, tmp_path):
    message = r'has of other shapes 3 entries .*backbone.weight \(5, 2\) instead of \(3, 2\).*same architecture'
    with pytest.raises(RuntimeError, match=message):
        _runner(case, tmp_path, _save(tmp_path, _Net(width=5)), new=['head']).train()


def test_evaluation_needs_the_new_parts_too(case, tmp_path):
    runner = _runner(case, tmp_path, _save(tmp_path, _Net(with_head=False)), new=['head'])
    with pytest.raises(RuntimeError, match='lacks 2 '):
        runner.load_or_resume()


def test_more_of_an_own_part_is_another_architecture(case, tmp_path):
    """All that the model has is there with the right shapes: it would load, and be wrong."""
    with pytest.raises(RuntimeError, match=r"too many 2 .*\['backbone.deeper1.weight'"):
        _runner(case, tmp_path, _save(tmp_path, _Net(depth=2))).train()


def test_parts_that_only_the_checkpoint_has_are_left_out(case, tmp_path):
    model = _Net()
    model.projector = nn.Linear(2, 2)
    _runner(case, tmp_path, _save(tmp_path, model)).train()


def test_resume_needs_the_new_parts_too(case, tmp_path):
    with pytest.raises(RuntimeError, match='lacks 2 '):
        _runner(case, tmp_path, _save(tmp_path, _Net(with_head=False)), new=['head'], resume=True).train()


def test_a_checkpoint_of_other_known_classes_is_refused(case, tmp_path):
    meta = dict(classes=['bird', 'cow', 'novel'], num_known=2)
    with pytest.raises(RuntimeError, match=r"checkpoint .*\['bird', 'cow'\].*\['cat', 'dog'\]"):
        _runner(case, tmp_path, _save(tmp_path, _Net(), dataset_meta=meta)).train()


def test_the_same_known_classes_pass_whatever_the_novel_ones_are(case, tmp_path):
    meta = dict(classes=('cat', 'dog', 'a', 'b'), num_known=2)
    _runner(case, tmp_path, _save(tmp_path, _Net(), dataset_meta=meta)).train()


def test_training_and_validation_must_know_the_same_classes(case, tmp_path):
    val = dict(val_dataloader=_loader(known=('dog', 'cat')), val_cfg=dict(), val_evaluator=[])
    with pytest.raises(RuntimeError, match=r"training .*\['cat', 'dog'\].*validation .*\['dog', 'cat'\]"):
        _runner(case, tmp_path, **val).train()


class _Part(BaseModule):
    def __init__(self, init_cfg, width=3):
        super().__init__(init_cfg)
        self.first = nn.Linear(2, width)
        self.second = nn.Linear(width, width)


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone'])
def test_a_part_may_start_from_weights_that_fit(case, tmp_path, prefix):
    runner = _runner(case, tmp_path)
    weights = {f'{"backbone." if prefix else ""}{name}': torch.full_like(value, 2.0) for name, value in _part().items()}
    torch.save({'state_dict': {**weights, 'head.fc.weight': torch.ones(9)}}, tmp_path / 'part.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'part.pth'), **({'prefix': prefix} if prefix else {}))
    runner.model.part = _Part(init_cfg)
    runner.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.0))
    runner.train()
    assert all((value == 2).all() for value in runner.model.part.state_dict().values())


@pytest.mark.parametrize('kind', ['renamed', 'wider', 'shallower', 'prefix'])
def test_weights_of_a_part_that_do_not_fit_are_refused(case, tmp_path, kind):
    """mmengine says so in the log, and trains on with random weights."""
    weights = _Part(None, width=5 if kind == 'wider' else 3).state_dict()
    if kind == 'renamed':
        weights = {f'_{name}': value for name, value in weights.items()}
    if kind == 'shallower':
        weights = {name: value for name, value in weights.items() if name.startswith('first')}
    torch.save({'state_dict': weights}, tmp_path / 'part.pth')
    runner = _runner(case, tmp_path)
    prefix = {'prefix': 'backbone.'} if kind == 'prefix' else {}
    runner.model.part = _Part(dict(type='Pretrained', checkpoint=str(tmp_path / 'part.pth'), **prefix))
    with pytest.raises(RuntimeError, match=r'all 4 entries of part \(_Part\) in .*part.pth but [24] are missing'):
        runner.train()


def _part():
    return _Part(None).state_dict()
