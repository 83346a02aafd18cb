import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import DataLoader

from distilled_net import (
    BATCH,
    TERMS,
    GramLoss,
    Net,
    SameClassLoss,
    gram_loss,
    hook_config,
    is_plain,
    make_runner,
    samples,
    save_teacher,
    teacher_of,
    the_hook,
)
from mmkd_ext.hooks import DistillHook


@pytest.fixture
def checkpoint(tmp_path):
    return save_teacher(tmp_path)


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


def test_priority_is_mmengines(case, tmp_path, checkpoint):
    runner = make_runner(case, tmp_path, [{**hook_config(checkpoint), 'priority': 'LOW'}])
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


# Bad input: each an error before the first iteration


class GreedyLoss(nn.Module):
    def forward(self, student, teacher, *, views):
        return student.sum()


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
    with pytest.raises(TypeError, match=r'teacher: .*config=.*checkpoint='):
        DistillHook(teacher, TERMS)


@pytest.mark.parametrize(
    ('tap', 'error', 'message'),
    [
        ({'student': 'backbon', 'teacher': 'backbone'}, KeyError, r"student: .*did you mean one of \['backbone'"),
        ({'student': 'backbone', 'teacher': 'backbone.3'}, KeyError, r"teacher: .*did you mean one of \['backbone"),
        ({'tap': 'backbone['}, ValueError, r'tap: expected `module\.path`'),
        ({'student': 'never', 'teacher': 'head'}, RuntimeError, r"student: tap 'never' .* fired 0 times"),
        ({'student': 'head', 'teacher': 'never'}, RuntimeError, r"teacher: tap 'never' .* fired 0 times"),
        ({'student': 'head[1]', 'teacher': 'head'}, RuntimeError, r"student: tap 'head\[1\]' expected a tuple"),
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
    with pytest.raises(ValueError, match=r'teacher: .* 1 channels .*\(4, 3, 6, 6\)'):
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
    with pytest.raises(RuntimeError, match=r"term 'same': .*gt_label"):
        set_up(student, DistillHook(teacher_of(checkpoint), terms), dataset=dataset)


def test_agreement_between_other_classes(checkpoint):
    terms = {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss}, 'agreement': True}}
    with pytest.raises(ValueError, match=r"term 'gram': .* \(4, 4\) of the student and \(4, 6\) of the teacher"):
        set_up(Net(), DistillHook(teacher_of(checkpoint), terms))


def test_missing_checkpoint_prints_the_command_that_makes_it():
    hook = DistillHook({'config': 'configs/a b.py', 'checkpoint': 'work_dirs/stage_1/epoch_9.pth'}, TERMS)
    command = "`mmkd train 'configs/a b.py' --work-dir work_dirs/stage_1`, or add --with-teacher"
    with pytest.raises(FileNotFoundError, match=r'checkpoint .*work_dirs/stage_1/epoch_9\.pth') as caught:
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
    with pytest.raises(ValueError, match=r'a\.pth .*Path'):
        set_up(Net(), DistillHook(teacher_of(str(tmp_path / 'a.pth')), TERMS))
    assert not (tmp_path / 'marker').exists()


def test_a_training_step_that_does_not_compute_losses(case, tmp_path, checkpoint):
    runner = make_runner(case, tmp_path, [hook_config(checkpoint)])
    runner.model.train_step = lambda data, optim_wrapper: {}
    with pytest.raises(RuntimeError, match=r"DistillHook: .*train_step .*mode='loss'"):
        runner.train()


def test_a_schedule_in_epochs_where_there_are_none(checkpoint):
    terms = {'gram': {**TERMS['gram'], 'schedule': {'warmup': 5}}}
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    with pytest.raises(ValueError, match=r"term 'gram': .*schedule=dict\(by_epoch=False"):
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
    with pytest.raises(ValueError, match=r"DistillHook: .*teacher .*\['b'\]"):
        DistillHook(terms=terms, teachers={'a': teacher_of(None), 'b': teacher_of(None)})


# Classes that a teacher names in another order


class Named(list):
    def __init__(self, classes):
        super().__init__(samples())
        self.metainfo = {'classes': classes}


def named_teacher(folder, classes):
    teacher = Net(width=6, num_classes=len(classes))
    meta = {'dataset_meta': {'classes': classes}}
    torch.save({'state_dict': teacher.state_dict(), 'meta': meta}, folder / 'teacher.pth')
    return teacher.eval(), teacher_of(str(folder / 'teacher.pth'), num_classes=len(classes))


KD = {'tap': 'head', 'agreement': True, 'loss': {'type': 'mmkd_ext.KDLoss', 'temperature': 1.0}}


@pytest.mark.parametrize('loss', [{'type': 'mmkd_ext.KDLoss', 'temperature': 1.0}, {'type': nn.MSELoss}])
@pytest.mark.parametrize('theirs', [['10', '2'], ['x', '10', '2'], ['2', '10']])
def test_logits_are_compared_by_the_names_of_classes(tmp_path, theirs, loss):
    """Folders sorted as text, '10' before '2', or a teacher that knows more: its columns are chosen by name."""
    student, ours = Net(drop=0.0), ['2', '10']
    teacher, spec = named_teacher(tmp_path, theirs)
    gram = {'tap': 'backbone', 'loss': {'type': GramLoss}}
    set_up(student, DistillHook(spec, {'kd': {'tap': 'head', 'loss': loss}, 'gram': gram}), dataset=Named(ours))
    x, batch = torch.randn(5, 3), [BaseDataElement(gt_label=torch.tensor([i % 2])) for i in range(5)]
    plain = copy.deepcopy(student)
    losses = student(x, batch, mode='loss')
    with torch.no_grad():
        columns = torch.stack([teacher(x)[:, theirs.index(name)] for name in ours], dim=1)
    logits = plain(x)
    kl = torch.nn.functional.kl_div(
        logits.log_softmax(1), columns.log_softmax(1), log_target=True, reduction='batchmean'
    )
    expected = (logits - columns).square().mean() if loss['type'] is nn.MSELoss else kl
    torch.testing.assert_close(losses['loss_kd'], expected)
    torch.testing.assert_close(losses['loss_gram'], gram_loss(plain.backbone(x), teacher.backbone(x)))


def test_agreement_counts_the_same_class(tmp_path):
    """A teacher that is the student but for the order of its classes agrees always."""
    student = Net(width=6, drop=0.0)
    _, spec = named_teacher(tmp_path, ['b', 'a'])
    weights = {
        **student.state_dict(),
        'head.weight': student.head.weight.flip(0),
        'head.bias': student.head.bias.flip(0),
    }
    torch.save({'state_dict': weights, 'meta': {'dataset_meta': {'classes': ['b', 'a']}}}, spec['checkpoint'])
    hook = DistillHook(spec, {'kd': KD})
    set_up(student, hook, dataset=Named(['a', 'b']))
    hook._distillation.diagnosing = True
    for module in student.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    batch = [BaseDataElement(gt_label=torch.tensor([0])) for _ in range(8)]
    losses = student(torch.randn(8, 3), batch, mode='loss')
    assert losses['agree_kd'] == 1
    torch.testing.assert_close(losses['loss_kd'], torch.zeros(()), atol=1e-5, rtol=0)


def test_other_classes_are_refused_with_the_remedy(tmp_path):
    _, spec = named_teacher(tmp_path, ['cat', 'cow'])
    message = r"lacks 'dog' and has 'cow'; compare features .*classes=\[\.\.\.\].*classes=None"
    with pytest.raises(ValueError, match=message):
        set_up(Net(), DistillHook(spec, {'kd': KD}), dataset=Named(['cat', 'dog']))
    for fine in ({**spec, 'classes': None}, {**spec, 'classes': ['cat', 'dog']}):
        set_up(Net(), DistillHook(fine, {'kd': KD}), dataset=Named(['cat', 'dog']))
    set_up(Net(), DistillHook(spec, TERMS), dataset=Named(['cat', 'dog']))  # features have no classes
    set_up(Net(), DistillHook(spec, {'kd': KD}))  # a data set that does not name them
