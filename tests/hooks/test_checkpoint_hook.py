import ast
import os
import re
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.hooks import AtomicCheckpointHook
from mmkd_ext.registry import HOOKS

ROOT = Path(__file__).parents[2]


class Interrupted(Exception):  # noqa: N818
    pass


def train(case, folder, resume=False, epochs=4, hooks=(), kind='mmkd_ext.AtomicCheckpointHook', **options):
    runner = case.build(
        work_dir=folder,
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        default_hooks={'checkpoint': {'type': kind, 'interval': 1, **options}},
        custom_hooks=list(hooks),
        resume=resume,
    )
    runner.train()
    return runner


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py')


@pytest.mark.parametrize('options', [{}, {'max_keep_ckpts': 1}, {'max_keep_ckpts': 2}, {'by_epoch': False}])
def test_leaves_the_files_of_the_original(case, tmp_path, options):
    train(case, tmp_path / 'ours', **options)
    train(case, tmp_path / 'theirs', kind='CheckpointHook', **options)
    assert names(tmp_path / 'ours') == names(tmp_path / 'theirs')
    pointers = [Path((tmp_path / run / 'last_checkpoint').read_text()).name for run in ('ours', 'theirs')]
    assert pointers[0] == pointers[1]


class CutOff(Hook):
    """Dies while the checkpoint of an epoch is written: before, or when it is to get its name."""

    def __init__(self, epoch, monkeypatch, function, path=''):
        self.epoch, self.monkeypatch, self.function, self.path = epoch, monkeypatch, function, path

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            original = getattr(os, self.function)

            def die(*args):
                if any(self.path in str(arg) for arg in args):
                    raise Interrupted
                return original(*args)

            self.monkeypatch.setattr(os, self.function, die)


@pytest.mark.parametrize(
    ('function', 'path', 'resumed_from'),
    [('fsync', '', 2), ('replace', 'epoch_3.pth', 2), ('replace', 'last_checkpoint', 2), ('remove', 'epoch_2.pth', 3)],
)
def test_one_checkpoint_is_enough_at_any_moment(case, tmp_path, monkeypatch, function, path, resumed_from):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train(case, tmp_path, hooks=[CutOff(3, patch, function, path)], max_keep_ckpts=1)
    pointed = Path((tmp_path / 'last_checkpoint').read_text())
    assert load_checkpoint_safely(pointed)['meta']['epoch'] == resumed_from
    train(case, tmp_path, resume=True, max_keep_ckpts=1)
    assert names(tmp_path) == ['epoch_4.pth', 'last_checkpoint']


class Collecting(Hook):
    calls: list = []  # noqa: RUF012

    def before_save_in_all_processes(self, runner):
        self.calls.append('collect')

    def before_save_checkpoint(self, runner, checkpoint):
        self.calls.append('save')


def test_hooks_of_all_processes_are_asked_before_the_main_one_writes(case, tmp_path):
    Collecting.calls.clear()
    train(case, tmp_path, epochs=2, hooks=[Collecting()])
    assert Collecting.calls == ['collect', 'save'] * 2


def documented_best():
    """Every ``checkpoint=dict(... save_best=...)`` of the documents, the configs and the package."""
    texts = (path.read_text() for part in ('README.md', 'docs', 'configs', 'mmkd_ext') for path in sources(ROOT / part))
    found = {match for text in texts for match in re.findall(r'checkpoint=(dict\([^()]*save_best=[^()]*\))', text)}
    keywords = [ast.parse(match, mode='eval').body.keywords for match in sorted(found)]
    return [{keyword.arg: ast.literal_eval(keyword.value) for keyword in some} for some in keywords]


def sources(root):
    return [root] if root.is_file() else [path for path in root.rglob('*') if path.suffix in ('.md', '.py')]


@pytest.mark.parametrize('kind', ['CheckpointHook', 'mmkd_ext.AtomicCheckpointHook'])
def test_documented_best_checkpoints_can_be_asked_for(kind):
    """mmengine knows for few metrics whether more is better, and refuses the others without a rule."""
    documented = documented_best()
    assert {options['save_best'] for options in documented} >= {'retrieval/recall@1'}
    for options in documented:
        hook = HOOKS.build({**options, 'type': kind})
        assert hook.is_better_than[options['save_best']](2, 1)


@pytest.mark.parametrize('options', [{'out_dir': 's3://bucket/run'}, {'backend_args': {'backend': 'local'}}])
def test_other_storage_is_left_to_its_backend(options):
    assert AtomicCheckpointHook(**options).backend_args == options.get('backend_args')
