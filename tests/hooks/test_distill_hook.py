import copy
import logging
import os
import re
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.functional import cross_entropy, dropout
from torch.utils.data import DataLoader

from mmkd_ext.distill import FrozenTeacher
from mmkd_ext.hooks import DistillHook


class Net(BaseModel):
    """A classifier of 3 features; dropout and batch statistics tell train mode from eval mode."""

    def __init__(self, width=4, num_classes=2, drop=0.1, criterion=True):
        super().__init__()
        self.drop = drop
        self.criterion = criterion
        self.num_forwards = 0
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Tanh())
        self.head = nn.Linear(width, num_classes)
        self.never = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.num_forwards += 1
        logits = self.head(dropout(self.backbone(inputs), self.drop, self.training))
        if mode != 'loss':
            return logits
        if not self.criterion:
            return {'loss_cls': logits.square().mean()}
        return {'loss_cls': cross_entropy(logits, torch.cat([sample.gt_label for sample in data_samples]))}


class GramLoss(nn.Module):
    """Squared difference of the Gram matrices; widths may differ."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student, teacher):
        return self.loss_weight * gram_loss(student, teacher)


class SameClassLoss(nn.Module):
    def forward(self, student, teacher, *, labels):
        same = labels[:, None] == labels
        return (student @ student.T)[same].square().mean()


class GreedyLoss(nn.Module):
    def forward(self, student, teacher, *, views):
        return student.sum()


def gram_loss(student, teacher):
    return (student @ student.T - teacher @ teacher.T).square().mean()


TERMS = {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss}}}
NUM_SAMPLES, BATCH = 16, 4


def samples():
    inputs = torch.randn(NUM_SAMPLES, 3, generator=torch.Generator().manual_seed(0))
    return [{'inputs': x, 'data_samples': BaseDataElement(gt_label=torch.tensor([int(x[0] > 0)]))} for x in inputs]


@pytest.fixture
def checkpoint(tmp_path):
    """Weights of a wider teacher whose batch statistics are not the initial ones."""
    teacher = Net(width=6)
    teacher(torch.randn(32, 3))
    torch.save({'state_dict': teacher.state_dict(), 'meta': {}}, tmp_path / 'teacher.pth')
    return str(tmp_path / 'teacher.pth')


def teacher_of(checkpoint, **model):
    return {'model': {'type': Net, 'width': 6, **model}, 'checkpoint': checkpoint}


def hook_config(checkpoint, terms=None):
    return {'type': 'mmkd_ext.DistillHook', 'teacher': teacher_of(checkpoint), 'terms': terms or TERMS}


def make_runner(work_dir, hooks=(), epochs=2, cfg=None, drop=0.1, log_interval=10, num_workers=0, **kwargs):
    return Runner(
        model={'type': Net, 'drop': drop},
        work_dir=str(work_dir),
        train_dataloader={
            'dataset': samples(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_size': BATCH,
            'num_workers': num_workers,
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg=kwargs.pop('train_cfg', {'by_epoch': True, 'max_epochs': epochs}),
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}, **kwargs.pop('optim_wrapper', {})},
        custom_hooks=list(hooks),
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
            'logger': log_interval and {'type': 'LoggerHook', 'interval': log_interval},
        },
        randomness={'seed': 0},
        experiment_name=f'{work_dir.name}_{epochs}_{len(hooks)}',
        cfg=cfg and Config(cfg),
        log_level='ERROR',
        **kwargs,
    )


def is_plain(student):
    return not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def the_hook(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, DistillHook))
    return hook


class Watch:
    """Keeps the teachers that a DistillHook builds and copies of their state, after the set-up."""

    def __init__(self, monkeypatch):
        set_up = DistillHook.before_train

        def before_train(hook, runner):
            set_up(hook, runner)
            self.teachers = [teacher.model for teacher in hook._distillation.teachers.values()]
            self.before = [copy.deepcopy(teacher.state_dict()) for teacher in self.teachers]

        monkeypatch.setattr(DistillHook, 'before_train', before_train)

    def assert_identical(self):
        for teacher, before in zip(self.teachers, self.before, strict=True):
            assert not teacher.training
            for name, value in teacher.state_dict().items():
                assert torch.equal(value, before[name]), name
            assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def logged(runner, name='train/loss_gram'):
    return runner.message_hub.get_scalar(name).data[0]


# What it adds


def runner_of(model, logger=None, dataset=None, train_loop=None):
    """What a hook sees of a Runner before training."""
    loader = DataLoader(dataset or samples(), batch_size=BATCH, collate_fn=default_collate)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    return SimpleNamespace(
        model=model,
        logger=logger or MMLogger.get_instance('test'),
        train_dataloader=loader,
        optim_wrapper=optimizer,
        train_loop=train_loop,
        hooks=[],
    )


def set_up(model, hook, **runner):
    """Attach the hook as the Runner would, without training."""
    hook.before_train(runner_of(model, **runner))


def test_value_and_gradient_are_those_of_an_independent_computation(checkpoint):
    student = Net()
    plain = copy.deepcopy(student)
    x = torch.randn(5, 3)
    batch = [BaseDataElement(gt_label=torch.tensor([i % 2])) for i in range(5)]
    set_up(student, DistillHook(teacher_of(checkpoint), TERMS))
    losses = student(x, batch, mode='loss')
    teacher = Net(width=6).eval()
    teacher.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])
    expected = gram_loss(plain.backbone(x), teacher.backbone(x).detach())
    torch.testing.assert_close(losses['loss_gram'], expected)
    losses['loss_gram'].backward()
    expected.backward()
    for actual, wanted in zip(student.backbone.parameters(), plain.backbone.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, wanted.grad)


def test_several_terms_with_different_taps_and_labels(checkpoint):
    student = Net(drop=0.0)
    plain = copy.deepcopy(student)
    terms = {
        'gram': {'student': 'backbone', 'teacher': 'head:in', 'loss': {'type': GramLoss, 'loss_weight': 2.0}},
        'same': {'tap': 'head', 'loss': {'type': SameClassLoss}},
    }
    set_up(student, DistillHook(teacher_of(checkpoint), terms))
    batch = [BaseDataElement(gt_label=torch.tensor([label])) for label in (0, 1)]
    x = torch.randn(2, 3)
    losses = student(x, batch, mode='loss')
    assert set(losses) == {'loss_cls', 'loss_gram', 'loss_same'}
    teacher = Net(width=6).eval()
    teacher.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])
    feature = plain.backbone(x)
    torch.testing.assert_close(losses['loss_gram'], 2 * gram_loss(feature, teacher.backbone(x)))
    norms = plain.head(feature).square().sum(1)  # two classes: each sample is alone with itself
    torch.testing.assert_close(losses['loss_same'], norms.square().mean())


# Training with the Runner


def test_training_changes_neither_teacher_nor_the_form_of_the_student(tmp_path, checkpoint, watch):
    runner = make_runner(tmp_path / 'with', [hook_config(checkpoint)])
    hook = the_hook(runner)
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 8
    assert hook._distillation is None
    assert is_plain(runner.model)
    make_runner(tmp_path / 'without').train()
    with_hook, without = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False) for name in ('with', 'without')
    )
    assert list(with_hook['state_dict']) == list(without['state_dict'])
    assert with_hook.keys() == without.keys()
    assert any(not torch.equal(value, without['state_dict'][name]) for name, value in with_hook['state_dict'].items())


def test_a_term_of_weight_zero_leaves_training_bit_identical(tmp_path, checkpoint):
    terms = {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss, 'loss_weight': 0.0}}}
    runners = [make_runner(tmp_path / 'with', [hook_config(checkpoint, terms)]), make_runner(tmp_path / 'without')]
    for runner in runners:
        torch.manual_seed(0)
        runner.train()
    for name, value in runners[0].model.state_dict().items():
        assert torch.equal(value, runners[1].model.state_dict()[name]), name


def test_with_ema(tmp_path, checkpoint, watch):
    for position in (0, 1):
        hooks = [{'type': 'EMAHook', 'update_buffers': True}]
        hooks.insert(position, hook_config(checkpoint))
        runner = make_runner(tmp_path / str(position), hooks)
        runner.train()
        watch.assert_identical()
        saved = torch.load(tmp_path / str(position) / 'epoch_2.pth', weights_only=False)
        names = set(Net().state_dict())
        assert set(saved['state_dict']) == names
        assert set(saved['ema_state_dict']) == {f'module.{name}' for name in names} | {'steps'}


def test_with_gradient_accumulation_and_clipping(tmp_path, checkpoint, watch):
    wrapper = {'accumulative_counts': 2, 'clip_grad': {'max_norm': 1.0}}
    runner = make_runner(tmp_path / 'a', [hook_config(checkpoint)], optim_wrapper=wrapper)
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 8


def test_resume_goes_on_with_the_term(tmp_path, checkpoint, watch):
    make_runner(tmp_path / 'a', [hook_config(checkpoint)], epochs=1).train()
    runner = make_runner(tmp_path / 'a', [hook_config(checkpoint)], epochs=3, resume=True)
    runner.train()
    watch.assert_identical()
    assert runner.iter == 12
    assert len(logged(runner)) == 12


class HalfPrecision(OptimWrapper):
    """mmengine's AmpOptimWrapper does not run on a CPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def test_with_automatic_mixed_precision(tmp_path, checkpoint, watch):
    terms = {
        'gram': TERMS['gram'],
        'kd': {'tap': 'head', 'loss': {'type': 'mmkd_ext.SoftTargetLoss', 'temperature': 4.0}},
    }
    runner = make_runner(tmp_path, [hook_config(checkpoint, terms)], optim_wrapper={'type': HalfPrecision})
    dtypes = []
    runner.model.head.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    runner.train()
    watch.assert_identical()
    assert set(dtypes) == {torch.bfloat16}
    assert torch.tensor(logged(runner)).isfinite().all()
    assert len(logged(runner, 'train/loss_kd')) == 8


def test_with_several_teachers(tmp_path, checkpoint, watch):
    torch.save(Net(width=5).state_dict(), tmp_path / 'other.pth')
    hook = {
        'type': 'mmkd_ext.DistillHook',
        'teachers': {
            'wide': teacher_of(checkpoint),
            'other': {'model': {'type': Net, 'width': 5}, 'checkpoint': str(tmp_path / 'other.pth')},
        },
        'terms': {'gram': {**TERMS['gram'], 'of': 'wide'}, 'more': {**TERMS['gram'], 'of': 'other'}},
    }
    runner = make_runner(tmp_path, [hook])
    runner.train()
    watch.assert_identical()
    assert len(watch.teachers) == 2
    assert len(logged(runner)) == len(logged(runner, 'train/loss_more')) == 8


def test_a_schedule_goes_on_after_a_resume(tmp_path, checkpoint):
    schedule = {'by_epoch': False, 'begin': 2, 'warmup': 4, 'stop': 10}
    hook = hook_config(checkpoint, {'gram': {**TERMS['gram'], 'schedule': schedule}})
    whole = make_runner(tmp_path / 'whole', [hook], epochs=3, drop=0.0)
    whole.train()
    make_runner(tmp_path / 'parts', [hook], epochs=1, drop=0.0).train()
    rest = make_runner(tmp_path / 'parts', [hook], epochs=3, drop=0.0, resume=True)
    rest.train()
    course = torch.tensor(logged(whole))
    torch.testing.assert_close(torch.tensor(logged(rest)), course, rtol=0, atol=0)
    assert ((course == 0) == torch.tensor([t <= 2 or t >= 10 for t in range(12)])).all()


@pytest.mark.parametrize('kind', ['cka', 'adaptive', 'tuples'])
def test_what_is_chosen_and_drawn_goes_on_after_a_resume(tmp_path, checkpoint, kind):
    term = {'pairs': [(f'backbone.{s}', f'backbone.{t}') for s in (0, 2) for t in (0, 2)], 'choice': kind}
    term['loss'] = {'type': GramLoss}
    if kind == 'tuples':
        term = {'tap': 'backbone', 'loss': {'type': 'mmkd_ext.TupleRelationLoss', 'order': 3, 'num_tuples': 5}}
    hook = hook_config(checkpoint, {'gram': term})
    make_runner(tmp_path / 'whole', [hook], epochs=3, drop=0.0).train()
    make_runner(tmp_path / 'parts', [hook], epochs=1, drop=0.0).train()
    make_runner(tmp_path / 'parts', [hook], epochs=3, drop=0.0, resume=True).train()
    whole, parts = (torch.load(tmp_path / run / 'epoch_3.pth', weights_only=False) for run in ('whole', 'parts'))
    for name, value in whole['state_dict'].items():
        assert torch.equal(parts['state_dict'][name], value), name
    assert ('distillation' in whole) == (kind != 'tuples')
    assert repr(parts.get('distillation')) == repr(whole.get('distillation'))


def test_weights_alone_bring_no_choice_of_layers(tmp_path, checkpoint):
    term = {'pairs': [('backbone', 'backbone'), ('backbone', 'head')], 'choice': 'cka', 'loss': {'type': GramLoss}}
    hook = hook_config(checkpoint, {'gram': term})
    make_runner(tmp_path / 'a', [hook], epochs=1).train()
    runner = make_runner(tmp_path / 'b', [hook], epochs=1, load_from=str(tmp_path / 'a' / 'epoch_1.pth'))
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


def test_an_epoch_of_a_loop_that_counts_iterations_is_a_pass_over_the_data(tmp_path, checkpoint):
    epochs = []

    class EpochLoss(GramLoss):
        def forward(self, student, teacher, *, epoch):
            epochs.append(epoch)
            return super().forward(student, teacher)

    hook = hook_config(checkpoint, {'gram': {'tap': 'backbone', 'loss': {'type': EpochLoss}}})
    runner = make_runner(tmp_path, [hook], train_cfg={'by_epoch': False, 'max_iters': 10})
    runner.train()
    assert epochs[1:] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_statistics_are_logged_with_each_line_and_never_between(tmp_path, checkpoint):
    terms = {'gram': TERMS['gram'], 'head': {'tap': 'head', 'loss': {'type': GramLoss}, 'agreement': True}}
    runner = make_runner(tmp_path, [hook_config(checkpoint, terms)], log_interval=2)
    lines = []
    add_scalars = runner.visualizer.add_scalars
    runner.visualizer.add_scalars = lambda tag, **kwargs: lines.append(dict(tag)) or add_scalars(tag, **kwargs)
    runner.train()
    kinds = {'share', 'cka', 'collapse'}
    names = {f'{kind}_{term}' for kind in kinds for term in terms} | {'agree_head'}
    assert len(lines) == 4
    for name in names:
        assert len(logged(runner, f'train/{name}')) == 4, name
        assert all(name in line for line in lines)
    for line, share in zip(lines, logged(runner, 'train/share_gram'), strict=True):
        assert line['share_gram'] == pytest.approx(share)
        assert 0 < line['share_gram'] + line['share_head'] < 1
        assert line['agree_head'] in (0, 0.25, 0.5, 0.75, 1)


def test_without_a_logger_there_are_no_statistics(tmp_path, checkpoint):
    runner = make_runner(tmp_path, [hook_config(checkpoint)], log_interval=None)
    runner.train()
    assert not [name for name in runner.message_hub.log_scalars if 'cka' in name]


def test_the_cost_of_the_teacher_is_reported_once(tmp_path, checkpoint, caplog):
    runner = make_runner(tmp_path, [hook_config(checkpoint)], epochs=5)
    runner.logger = logging.getLogger('plain')
    with caplog.at_level(logging.INFO, 'plain'):
        runner.train()
    costs = [record.message for record in caplog.records if "share of the teachers' forwards" in record.message]
    assert len(costs) == 1
    assert re.search(r'mean of 10 steps: teacher \d+% \([\d.]+ ms\)$', costs[0])


def test_data_that_workers_load(tmp_path, checkpoint, watch):
    runner = make_runner(tmp_path, [hook_config(checkpoint)], epochs=1, num_workers=1)
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 4


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
@pytest.mark.parametrize('parts', [('student',), ('teacher',), ('student', 'teacher')])
def test_compiled_training_computes_the_same(tmp_path, checkpoint, watch, backend, parts):
    plain = make_runner(tmp_path / 'plain', [hook_config(checkpoint)])
    plain.train()
    hook = hook_config(checkpoint)
    if 'teacher' in parts:
        hook['teacher'] |= {'compile': {'backend': backend}}
    compiled = make_runner(
        tmp_path / 'compiled', [hook], cfg={'compile': {'backend': backend}} if 'student' in parts else None
    )
    compiled.train()
    watch.assert_identical()
    torch.testing.assert_close(torch.tensor(logged(compiled)), torch.tensor(logged(plain)), rtol=1e-4, atol=1e-5)


def test_the_teacher_stops_after_its_last_tap_and_the_losses_stay_the_same(tmp_path, checkpoint, monkeypatch):
    num_heads = []

    def run(name):
        runner = make_runner(tmp_path / name, [hook_config(checkpoint)])
        set_up = the_hook(runner).before_train

        def before_train(runner):
            set_up(runner)
            (teacher,) = the_hook(runner)._distillation.teachers.values()
            teacher.model.head.register_forward_hook(lambda *_: num_heads.append(name))

        the_hook(runner).before_train = before_train
        runner.train()
        return runner

    stopped = run('stopped')
    assert num_heads == []
    monkeypatch.setattr(FrozenTeacher, '_is_checked', property(lambda _: False, lambda *_: None), raising=False)
    whole = run('whole')
    assert num_heads == ['whole'] * 8
    assert logged(stopped) == pytest.approx(logged(whole), abs=0)
    for name, value in stopped.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


def test_with_activation_checkpointing(tmp_path, checkpoint, watch):
    runner = make_runner(tmp_path / 'a', [hook_config(checkpoint)], cfg={'activation_checkpointing': ['backbone.2']})
    runner.train()
    watch.assert_identical()
    assert len(logged(runner)) == 8


def test_testing_needs_no_teacher(tmp_path):
    runner = make_runner(
        tmp_path,
        [hook_config('nothing.pth')],
        test_dataloader={
            'dataset': samples(),
            'sampler': {'type': 'DefaultSampler'},
            'batch_size': 4,
            'collate_fn': {'type': 'default_collate'},
        },
        test_cfg={},
        test_evaluator={'type': 'DumpResults', 'out_file_path': str(tmp_path / 'out.pkl')},
    )
    runner.test()
    assert (tmp_path / 'out.pkl').is_file()


def test_priority_is_mmengines(tmp_path, checkpoint):
    runner = make_runner(tmp_path, [{**hook_config(checkpoint), 'priority': 'LOW'}])
    assert the_hook(runner).priority == 'LOW'


def test_the_start_is_reported_once_as_a_table(checkpoint, caplog):
    logger = logging.getLogger('plain')
    terms = {
        'gram': {'student': 'backbone', 'teacher': 'head:in', 'loss': {'type': GramLoss, 'loss_weight': 2.0}},
        'same': {'tap': 'head', 'loss': {'type': SameClassLoss}, 'schedule': {'warmup': 3}},
    }
    with caplog.at_level(logging.INFO, 'plain'):
        set_up(Net(), DistillHook(teacher_of(checkpoint), terms), logger=logger)
    (record,) = caplog.records
    lines = [' '.join(line.split()) for line in record.message.splitlines()]
    assert f"teacher Net 50 9 of 9 from {checkpoint} the student's" in lines
    assert 'loss_gram backbone (4, 4) teacher: head:in (4, 6) GramLoss 2.0 constant' in lines
    assert 'loss_same head (4, 2) teacher: head (4, 2) SameClassLoss - warm-up 3 (epochs)' in lines


# Two processes


def _train_replica(rank, folder, checkpoint):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    runner = make_runner(
        folder / 'work',
        [hook_config(checkpoint), {'type': 'EMAHook'}],
        drop=0.0,
        launcher='pytorch',
        cfg={
            'model_wrapper_cfg': {'type': 'MMDistributedDataParallel', 'device_ids': None, 'broadcast_buffers': False}
        },
    )
    steps = []

    def watch(student, args, call):
        state = copy.deepcopy(student.state_dict())
        steps.append({'inputs': call['inputs'], 'labels': labels_of(call['data_samples']), 'state': state})

    patch = pytest.MonkeyPatch()
    teacher = Watch(patch)
    student = runner.model.module
    student.register_forward_pre_hook(watch, with_kwargs=True)
    runner.train()
    teacher.assert_identical()
    patch.undo()
    torch.save({'steps': steps, 'final': student.state_dict()}, folder / f'rank_{rank}.pth')
    dist.destroy_process_group()


def labels_of(data_samples):
    return torch.cat([sample.gt_label for sample in data_samples])


def test_two_processes_stay_equal_and_average_the_gradient_of_the_term(tmp_path, checkpoint):
    torch.multiprocessing.start_processes(_train_replica, (tmp_path, checkpoint), nprocs=2, start_method='fork')
    ranks = [torch.load(tmp_path / f'rank_{rank}.pth', weights_only=True) for rank in range(2)]
    trained = dict(Net().named_parameters())
    for name in trained:
        assert torch.equal(ranks[0]['final'][name], ranks[1]['final'][name]), name
    for rank in ranks:
        del rank['steps'][0]  # the rehearsal
    assert len(ranks[0]['steps']) == 4
    assert not torch.equal(ranks[0]['steps'][0]['inputs'], ranks[1]['steps'][0]['inputs'])

    teacher = Net(width=6).eval()
    teacher.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])
    expected = dict.fromkeys(trained, 0.0)
    for rank in ranks:
        student = Net(drop=0.0)
        student.load_state_dict(rank['steps'][0]['state'])
        x, labels = rank['steps'][0]['inputs'], rank['steps'][0]['labels']
        feature = student.backbone(x)
        loss = cross_entropy(student.head(feature), labels) + gram_loss(feature, teacher.backbone(x).detach())
        loss.backward()
        for name, parameter in student.named_parameters():
            expected[name] = expected[name] + parameter.grad / 2
    first, second = (ranks[0]['steps'][i]['state'] for i in range(2))
    for name in trained:
        torch.testing.assert_close((first[name] - second[name]) / 0.1, expected[name], rtol=1e-4, atol=1e-5)


# Bad input: each an error before the first iteration


@pytest.mark.parametrize(
    ('terms', 'error', 'message'),
    [
        ({}, ValueError, 'expected at least one term'),
        ({'sp': {'tab': 'neck', 'loss': {'type': GramLoss}}}, TypeError, r"term 'sp': .* keys \['loss', 'tab'\]"),
        ({'sp': {'tap': 'neck'}}, TypeError, r"term 'sp': .* keys \['tap'\]"),
        ({'sp': {'student': 'neck', 'loss': {'type': GramLoss}}}, TypeError, r"term 'sp': expected dict\(tap"),
        (
            {'sp': {'tap': 'neck', 'teacher': 'neck', 'loss': {'type': GramLoss}}},
            TypeError,
            r"term 'sp': expected dict\(tap",
        ),
        ({'sp': {'tap': 'neck', 'loss': {'type': GramLoss, 'weight': 2}}}, TypeError, r"term 'sp': .*'weight'"),
        ({'sp': {'tap': 'neck', 'loss': {'type': GreedyLoss}}}, TypeError, r"term 'sp': .*missing.*'views'"),
    ],
)
def test_bad_terms(terms, error, message):
    with pytest.raises(error, match=message):
        DistillHook(teacher_of(None), terms)


@pytest.mark.parametrize(
    'teacher', [{'config': 'a.py'}, {'checkpoint': None}, {'config': 'a', 'model': {}, 'checkpoint': None}]
)
def test_bad_teacher_keys(teacher):
    with pytest.raises(TypeError, match=r'teacher: expected dict\(config=\.\.\., checkpoint=\.\.\.\)'):
        DistillHook(teacher, TERMS)


@pytest.mark.parametrize(
    ('tap', 'error', 'message'),
    [
        ({'student': 'backbon', 'teacher': 'backbone'}, KeyError, r"student: .*did you mean one of \['backbone'"),
        ({'student': 'backbone', 'teacher': 'backbone.3'}, KeyError, r"teacher: .*did you mean one of \['backbone"),
        ({'tap': 'backbone['}, ValueError, r'tap: expected `module\.path`'),
        ({'student': 'never', 'teacher': 'head'}, RuntimeError, r"student: tap 'never' .* fired 0 times"),
        ({'student': 'head', 'teacher': 'never'}, RuntimeError, r"teacher: tap 'never' .* fired 0 times"),
        ({'student': 'head[1]', 'teacher': 'head'}, TypeError, r"student: tap 'head\[1\]' expected a tuple"),
    ],
)
def test_bad_taps(checkpoint, tap, error, message):
    student = Net()
    with pytest.raises(error, match=message):
        set_up(student, DistillHook(teacher_of(checkpoint), {'gram': {**tap, 'loss': {'type': GramLoss}}}))
    assert is_plain(student)


def test_a_tap_in_a_frozen_layer(checkpoint):
    student = Net()
    student.backbone.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"term 'gram': .* frozen layer"):
        set_up(student, DistillHook(teacher_of(checkpoint), TERMS))
    assert is_plain(student)


class ConvNet(BaseModel):
    def __init__(self, in_channels=3):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 2, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        feature = self.stem(inputs)
        return {'loss_own': feature.square().mean()} if mode == 'loss' else feature


def test_a_teacher_with_other_input_channels():
    images = [{'inputs': torch.randn(3, 6, 6), 'data_samples': BaseDataElement()} for _ in range(BATCH)]
    terms = {'gram': {'tap': 'stem', 'loss': {'type': GramLoss}, 'pooling': 'gap'}}
    student = ConvNet()
    hook = DistillHook({'model': {'type': ConvNet, 'in_channels': 1}, 'checkpoint': None}, terms)
    with pytest.raises(ValueError, match=r'teacher: expected inputs of 1 channels but .* shape \(4, 3, 6, 6\)'):
        set_up(student, hook, dataset=images)
    assert is_plain(student)
    set_up(student, DistillHook({'model': {'type': ConvNet}, 'checkpoint': None}, terms), dataset=images)
    assert not is_plain(student)


def test_a_loss_that_does_not_take_the_shapes(checkpoint):
    terms = {'mse': {'tap': 'backbone', 'loss': {'type': nn.MSELoss}}}
    student = Net()
    message = r"term 'mse': The size of tensor .* \(student \(4, 4\) at 'backbone', teacher \(4, 6\) at 'backbone'\)"
    with pytest.raises(RuntimeError, match=message), pytest.warns(UserWarning, match='target size'):
        set_up(student, DistillHook(teacher_of(checkpoint), terms))
    assert is_plain(student)


def test_labels_that_the_data_has_not(checkpoint):
    terms = {'same': {'tap': 'head', 'loss': {'type': SameClassLoss}}}
    dataset = [{'inputs': sample['inputs'], 'data_samples': BaseDataElement()} for sample in samples()]
    student = Net(criterion=False)
    with pytest.raises(RuntimeError, match=r"term 'same': expected data samples with a gt_label"):
        set_up(student, DistillHook(teacher_of(checkpoint), terms), dataset=dataset)


def test_agreement_between_other_classes(checkpoint):
    terms = {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss}, 'agreement': True}}
    with pytest.raises(ValueError, match=r"term 'gram': .* \(4, 4\) of the student and \(4, 6\) of the teacher"):
        set_up(Net(), DistillHook(teacher_of(checkpoint), terms))


def test_missing_checkpoint_prints_the_command_that_makes_it():
    hook = DistillHook({'config': 'configs/a b.py', 'checkpoint': 'work_dirs/stage_1/epoch_9.pth'}, TERMS)
    command = "`python tools/train.py 'configs/a b.py' --work-dir work_dirs/stage_1`, or add --with-teacher"
    with pytest.raises(FileNotFoundError, match=r'expected a checkpoint at work_dirs/stage_1/epoch_9\.pth') as caught:
        set_up(Net(), hook)
    assert command in str(caught.value)


@pytest.mark.parametrize('model', [{'width': 5}, {'num_classes': 3}])
def test_checkpoint_of_another_architecture(checkpoint, model):
    student = Net()
    with pytest.raises(RuntimeError, match=r'teacher: .* is of another architecture'):
        set_up(student, DistillHook(teacher_of(checkpoint, **model), TERMS))
    assert is_plain(student)


def test_hostile_checkpoint_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return type(tmp_path).mkdir, (tmp_path / 'marker',)

    torch.save({'state_dict': Payload()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth but it asks for .*not loaded'):
        set_up(Net(), DistillHook(teacher_of(str(tmp_path / 'a.pth')), TERMS))
    assert not (tmp_path / 'marker').exists()


def test_a_training_step_that_does_not_compute_losses(tmp_path, checkpoint):
    runner = make_runner(tmp_path, [hook_config(checkpoint)])
    runner.model.train_step = lambda data, optim_wrapper: {}
    with pytest.raises(RuntimeError, match=r"expected the student's train_step to call its forward with mode='loss'"):
        runner.train()


def test_a_schedule_in_epochs_where_there_are_none(checkpoint):
    terms = {'gram': {**TERMS['gram'], 'schedule': {'warmup': 5}}}
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    with pytest.raises(ValueError, match=r"term 'gram': .* write schedule=dict\(by_epoch=False"):
        set_up(Net(), DistillHook(teacher_of(checkpoint), terms), train_loop=loop)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({}, TypeError, r'expected one of teacher=dict\(\.\.\.\) and teachers='),
        ({'teacher': teacher_of(None), 'teachers': {'a': teacher_of(None)}}, TypeError, 'expected one of teacher='),
        ({'teachers': {'a': teacher_of(None), 'b': {}}}, TypeError, r"teacher 'b': expected dict\(config="),
        ({'teachers': {'a': teacher_of(None), 'b': teacher_of(None)}}, KeyError, r"one of the teachers \['a', 'b'\]"),
    ],
)
def test_bad_teachers(arguments, error, message):
    with pytest.raises(error, match=message):
        DistillHook(terms=TERMS, **arguments)


def test_a_teacher_without_a_term():
    terms = {'gram': {**TERMS['gram'], 'of': 'a'}}
    with pytest.raises(ValueError, match=r"expected a term of each teacher but \['b'\] have none"):
        DistillHook(terms=terms, teachers={'a': teacher_of(None), 'b': teacher_of(None)})
