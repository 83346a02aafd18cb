import copy
import logging
import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.functional import cross_entropy, dropout

from mmkd_ext.hooks import DistillHook


class Net(BaseModel):
    """A classifier of 3 features; dropout and batch statistics tell train mode from eval mode."""

    def __init__(self, width=4, num_classes=2, drop=0.1, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.drop = drop
        self.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Tanh())
        self.head = nn.Linear(width, num_classes)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(dropout(self.backbone(inputs), self.drop, self.training))
        if mode != 'loss':
            return logits
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


def make_runner(work_dir, hooks=(), epochs=2, cfg=None, drop=0.1, **kwargs):
    return Runner(
        model={'type': Net, 'drop': drop},
        work_dir=str(work_dir),
        train_dataloader={
            'dataset': samples(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_size': BATCH,
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}, **kwargs.pop('optim_wrapper', {})},
        custom_hooks=list(hooks),
        default_hooks={'checkpoint': {'type': 'CheckpointHook', 'interval': 1}},
        randomness={'seed': 0},
        experiment_name=f'{work_dir.name}_{epochs}_{len(hooks)}',
        cfg=cfg and Config(cfg),
        log_level='ERROR',
        **kwargs,
    )


def the_hook(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, DistillHook))
    return hook


class Watch:
    """Keeps the teacher that a DistillHook builds and a copy of its state, after the set-up."""

    def __init__(self, monkeypatch):
        set_up = DistillHook.before_train

        def before_train(hook, runner):
            set_up(hook, runner)
            self.teacher = hook._distillation.teacher.model
            self.before = copy.deepcopy(self.teacher.state_dict())

        monkeypatch.setattr(DistillHook, 'before_train', before_train)

    def assert_identical(self):
        assert not self.teacher.training
        for name, value in self.teacher.state_dict().items():
            assert torch.equal(value, self.before[name]), name
        assert all(p.grad is None and not p.requires_grad for p in self.teacher.parameters())


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def logged(runner, name='train/loss_gram'):
    return runner.message_hub.get_scalar(name).data[0]


# What it adds


def set_up(model, hook):
    """Attach the hook as the Runner would, without training."""
    hook.before_train(SimpleNamespace(model=model, logger=MMLogger.get_instance('test')))


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
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in runner.model.modules())
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


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled_training_computes_the_same(tmp_path, checkpoint, watch, backend):
    plain = make_runner(tmp_path / 'plain', [hook_config(checkpoint)])
    plain.train()
    compiled = make_runner(tmp_path / 'compiled', [hook_config(checkpoint)], cfg={'compile': {'backend': backend}})
    compiled.train()
    watch.assert_identical()
    torch.testing.assert_close(torch.tensor(logged(compiled)), torch.tensor(logged(plain)), rtol=1e-4, atol=1e-5)


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


def test_start_is_reported_once(checkpoint, caplog):
    logger = logging.getLogger('plain')
    with caplog.at_level(logging.INFO, 'plain'):
        DistillHook(teacher_of(checkpoint), TERMS).before_train(SimpleNamespace(model=Net(), logger=logger))
    (record,) = caplog.records
    assert record.message.startswith(
        'DistillHook: loss_gram (backbone <- backbone); teacher Net, 50 parameters, 9 of 9'
    )


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

    student = runner.model.module
    student.register_forward_pre_hook(watch, with_kwargs=True)
    runner.train()
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
    with pytest.raises(TypeError, match=r'expected teacher=dict\(config=\.\.\., checkpoint=\.\.\.\)'):
        DistillHook(teacher, TERMS)


@pytest.mark.parametrize(
    ('tap', 'error', 'message'),
    [
        ({'student': 'backbon', 'teacher': 'backbone'}, KeyError, r"student: .*did you mean one of \['backbone'"),
        ({'student': 'backbone', 'teacher': 'backbone.3'}, KeyError, r"teacher: .*did you mean one of \['backbone"),
        ({'tap': 'backbone['}, ValueError, r'tap: expected `module\.path`'),
    ],
)
def test_bad_taps(checkpoint, tap, error, message):
    student = Net()
    with pytest.raises(error, match=message):
        set_up(student, DistillHook(teacher_of(checkpoint), {'gram': {**tap, 'loss': {'type': GramLoss}}}))
    assert not student._forward_hooks


def test_missing_checkpoint_prints_the_command_that_makes_it():
    hook = DistillHook({'config': 'configs/a b.py', 'checkpoint': 'work_dirs/stage_1/epoch_9.pth'}, TERMS)
    command = "`python tools/train.py 'configs/a b.py' --work-dir work_dirs/stage_1`, or add --with-teacher"
    with pytest.raises(FileNotFoundError, match=r'expected a checkpoint at work_dirs/stage_1/epoch_9\.pth') as caught:
        set_up(Net(), hook)
    assert command in str(caught.value)


def test_missing_checkpoint_of_an_inline_teacher_names_the_file():
    with pytest.raises(FileNotFoundError, match=r'expected a checkpoint at nothing\.pth but found no file$'):
        set_up(Net(), DistillHook(teacher_of('nothing.pth'), TERMS))


@pytest.mark.parametrize('model', [{'width': 5}, {'num_classes': 3}])
def test_checkpoint_of_another_architecture(checkpoint, model):
    student = Net()
    with pytest.raises(RuntimeError, match=r'teacher: .* is of another architecture'):
        set_up(student, DistillHook(teacher_of(checkpoint, **model), TERMS))
    assert not student._forward_hooks


def test_hostile_checkpoint_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return type(tmp_path).mkdir, (tmp_path / 'marker',)

    torch.save({'state_dict': Payload()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth but it asks for .*not loaded'):
        set_up(Net(), DistillHook(teacher_of(str(tmp_path / 'a.pth')), TERMS))
    assert not (tmp_path / 'marker').exists()


def preprocessor(mean, bgr_to_rgb=False):
    return {'type': ImgDataPreprocessor, 'mean': [mean] * 3, 'std': [2.0] * 3, 'bgr_to_rgb': bgr_to_rgb}


@pytest.mark.parametrize(
    ('own', 'message'),
    [(None, 'but got'), (preprocessor(4.0), r'4\.0'), (preprocessor(3.0, bgr_to_rgb=True), "'swaps_channels': True")],
)
def test_a_teacher_with_another_normalization_is_refused(checkpoint, own, message):
    hook = DistillHook(teacher_of(checkpoint, data_preprocessor=preprocessor(3.0)), TERMS)
    with pytest.raises(ValueError, match=rf'teacher: expected the normalization of the student.*{message}'):
        set_up(Net(data_preprocessor=own), hook)


@pytest.mark.parametrize('teacher', [None, preprocessor(3.0)])
def test_a_teacher_with_the_same_or_no_normalization_is_accepted(checkpoint, teacher):
    student = Net(data_preprocessor=preprocessor(3.0))
    set_up(student, DistillHook(teacher_of(checkpoint, data_preprocessor=teacher), TERMS))
    assert student._forward_hooks
