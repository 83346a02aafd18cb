"""A training with a DistillHook that was interrupted goes on as an undisturbed one."""

import pytest
import torch

from distilled_net import TERMS, GramLoss, Watch, hook_config, logged, make_runner, save_teacher
from mmkd_ext.hooks import DistillHook


@pytest.fixture
def checkpoint(tmp_path):
    return save_teacher(tmp_path)


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def test_resume_goes_on_with_the_term(case, tmp_path, checkpoint, watch):
    make_runner(case, tmp_path / 'a', [hook_config(checkpoint)], epochs=1).train()
    runner = make_runner(case, tmp_path / 'a', [hook_config(checkpoint)], epochs=3, resume=True)
    runner.train()
    watch.assert_identical()
    assert runner.iter == 12
    assert len(logged(runner)) == 12


def test_a_schedule_goes_on_after_a_resume(case, tmp_path, checkpoint):
    schedule = {'by_epoch': False, 'begin': 2, 'warmup': 4, 'stop': 10}
    hook = hook_config(checkpoint, {'gram': {**TERMS['gram'], 'schedule': schedule}})
    whole = make_runner(case, tmp_path / 'whole', [hook], epochs=3, drop=0.0)
    whole.train()
    make_runner(case, tmp_path / 'parts', [hook], epochs=1, drop=0.0).train()
    rest = make_runner(case, tmp_path / 'parts', [hook], epochs=3, drop=0.0, resume=True)
    rest.train()
    course = torch.tensor(logged(whole))
    torch.testing.assert_close(torch.tensor(logged(rest)), course, rtol=0, atol=0)
    assert ((course == 0) == torch.tensor([t <= 2 or t >= 10 for t in range(12)])).all()


@pytest.mark.parametrize('kind', ['cka', 'adaptive', 'tuples'])
def test_what_is_chosen_and_drawn_goes_on_after_a_resume(case, tmp_path, checkpoint, kind):
    term = {'pairs': [(f'backbone.{s}', f'backbone.{t}') for s in (0, 2) for t in (0, 2)], 'choice': kind}
    term['loss'] = {'type': GramLoss}
    if kind == 'tuples':
        term = {'tap': 'backbone', 'loss': {'type': 'mmkd_ext.TupleRelationLoss', 'order': 3, 'num_tuples': 5}}
    hook = hook_config(checkpoint, {'gram': term})
    make_runner(case, tmp_path / 'whole', [hook], epochs=3, drop=0.0).train()
    make_runner(case, tmp_path / 'parts', [hook], epochs=1, drop=0.0).train()
    make_runner(case, tmp_path / 'parts', [hook], epochs=3, drop=0.0, resume=True).train()
    whole, parts = (torch.load(tmp_path / run / 'epoch_3.pth', weights_only=False) for run in ('whole', 'parts'))
    for name, value in whole['state_dict'].items():
        assert torch.equal(parts['state_dict'][name], value), name
    assert ('distillation' in whole) == (kind != 'tuples')
    assert repr(parts.get('distillation')) == repr(whole.get('distillation'))


def test_weights_alone_bring_no_choice_of_layers(case, tmp_path, checkpoint):
    term = {'pairs': [('backbone', 'backbone'), ('backbone', 'head')], 'choice': 'cka', 'loss': {'type': GramLoss}}
    hook = hook_config(checkpoint, {'gram': term})
    make_runner(case, tmp_path / 'a', [hook], epochs=1).train()
    runner = make_runner(case, tmp_path / 'b', [hook], epochs=1, load_from=str(tmp_path / 'a' / 'epoch_1.pth'))
    chosen = []
    before_train = DistillHook.before_train_iter

    def watch(self, *args, **kwargs):
        chosen.append(self._terms[0].layer_choice.chosen)
        before_train(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillHook, 'before_train_iter', watch)
        runner.train()
    assert chosen[0] is None
    assert chosen[1] is not None
