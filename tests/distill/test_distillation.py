import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_ext.distill import Distillation, FrozenTeacher, Term


class Net(nn.Module):
    """A classifier with the forward of OpenMMLab models."""

    def __init__(self, width, reentrant=None):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Tanh())
        self.head = nn.Linear(width, 2)
        self.reentrant = reentrant
        self.modes = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.modes.append(mode)
        if self.reentrant is None:
            feature = self.body(inputs)
        else:
            feature = checkpoint(self.body, inputs, use_reentrant=self.reentrant)
        logits = self.head(feature)
        if mode != 'loss':
            return logits
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return {'loss_cls': nn.functional.cross_entropy(logits, labels), 'accuracy': torch.tensor(0.5)}


class GramLoss(nn.Module):
    """A relation between samples: widths of student and teacher may differ."""

    def forward(self, student, teacher):
        return (student @ student.T - teacher @ teacher.T).square().mean()


X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
SAMPLES = [SimpleNamespace(gt_label=torch.tensor([i % 2])) for i in range(6)]


def distilled(terms=None, **student):
    student, teacher = Net(4, **student), Net(5)
    terms = terms or [Term('gram', 'body', 'body', GramLoss())]
    frozen = FrozenTeacher(teacher, [term.teacher for term in terms])
    return student, teacher, Distillation(student, frozen, terms)


@pytest.mark.parametrize(
    'call',
    [
        lambda model: model(X, SAMPLES, mode='loss'),
        lambda model: model(X, SAMPLES, 'loss'),
        lambda model: model(inputs=X, data_samples=SAMPLES, mode='loss'),
    ],
)
def test_adds_the_term_to_the_losses_and_leaves_the_rest(call):
    student, teacher, _ = distilled()
    plain = copy.deepcopy(student)
    plain._forward_hooks.clear()
    plain._forward_pre_hooks.clear()
    losses = call(student)
    own = call(plain)
    feature_S, feature_T = plain.body(X), teacher.body(X).detach()
    expected = ((feature_S @ feature_S.T - feature_T @ feature_T.T) ** 2).mean()
    assert set(losses) == {'loss_cls', 'accuracy', 'loss_gram'}
    torch.testing.assert_close(losses['loss_gram'], expected)
    torch.testing.assert_close(losses['loss_cls'], own['loss_cls'], rtol=0, atol=0)

    (losses['loss_cls'] + losses['loss_gram']).backward()
    (own['loss_cls'] + expected).backward()
    for actual, wanted in zip(student.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, wanted.grad)


def test_teacher_runs_only_in_training_with_mode_loss():
    student, teacher, _ = distilled()
    student(X)
    student(X, SAMPLES, mode='predict')
    student.eval()
    assert set(student(X, SAMPLES, mode='loss')) == {'loss_cls', 'accuracy'}
    assert teacher.modes == []
    student.train()
    student(X, SAMPLES, mode='loss')
    assert teacher.modes == ['tensor']


def test_student_losses_are_never_overwritten():
    student, _, _ = distilled([Term('cls', 'body', 'body', GramLoss())])
    with pytest.raises(RuntimeError, match=r"student already has \['loss_cls'\]; rename the term"):
        student(X, SAMPLES, mode='loss')


def test_a_student_that_returns_no_dict_of_losses():
    student, _, _ = distilled()
    student.forward = lambda inputs, data_samples, mode: student.head(student.body(inputs)).sum()
    with pytest.raises(RuntimeError, match='expected a dict of losses from the student but got Tensor'):
        student(X, SAMPLES, mode='loss')


def test_goes_on_after_an_error_in_the_student():
    student, _, _ = distilled()
    with pytest.raises(TypeError):
        student(X, None, mode='loss')
    assert 'loss_gram' in student(X, SAMPLES, mode='loss')


def test_tap_inside_reentrant_checkpointing_is_an_error():
    terms = [Term('gram', 'body.0', 'body.0', GramLoss())]
    student, _, _ = distilled(terms, reentrant=True)
    with pytest.raises(RuntimeError, match=r"term 'gram': .* reentrant activation checkpointing"):
        student(X.clone().requires_grad_(), SAMPLES, mode='loss')


def test_tap_inside_other_checkpointing_trains():
    student, _, _ = distilled([Term('gram', 'body.0', 'body.0', GramLoss())], reentrant=False)
    student(X, SAMPLES, mode='loss')['loss_gram'].backward()
    assert student.body[0].weight.grad.abs().sum() > 0


def test_student_is_unchanged_to_everybody_else():
    student, _, _ = distilled()
    assert set(student.state_dict()) == set(Net(4).state_dict())
    assert len(list(student.modules())) == len(list(Net(4).modules()))


@pytest.mark.parametrize('clone', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_the_student_distils_by_itself(clone):
    student, _, _ = distilled()
    twin = clone(student)
    with torch.no_grad():
        twin.body[0].weight.mul_(2)
    value, value_of_twin = (model(X, SAMPLES, mode='loss')['loss_gram'] for model in (student, twin))
    feature = twin.body(X)
    assert value != value_of_twin
    (gradient,) = torch.autograd.grad(value_of_twin, twin.body[0].weight)
    assert gradient.abs().sum() > 0
    assert feature.shape == (6, 4)


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled_student(backend):
    student, _, _ = distilled()
    expected = student(X, SAMPLES, mode='loss')
    student.forward = torch.compile(student.forward, backend=backend)
    for _ in range(2):
        losses = student(X, SAMPLES, mode='loss')
        torch.testing.assert_close(losses['loss_gram'], expected['loss_gram'])
    losses['loss_gram'].backward()
    assert student.body[0].weight.grad.abs().sum() > 0


def test_remove_leaves_a_plain_student():
    student, _, distillation = distilled()
    distillation.remove()
    assert set(student(X, SAMPLES, mode='loss')) == {'loss_cls', 'accuracy'}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())
