import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_ext.distill import Distillation, FrozenTeacher, Stopwatch, Term, WeightSchedule


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
    frozen = {'teacher': FrozenTeacher(teacher, [tap for term in terms for tap in term.teacher_taps])}
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


class CountingNet(Net):
    """A teacher that counts its forwards."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.num_forwards = getattr(self, 'num_forwards', 0) + 1
        return super().forward(inputs, data_samples, mode)


def two_teachers(**schedules):
    """A student with two terms of teacher a and one of teacher b."""
    student, models = Net(4), {'a': CountingNet(5), 'b': CountingNet(6)}
    places = {'a1': ('body', 'a'), 'a2': ('body.0', 'a'), 'b1': ('body', 'b')}
    terms = [
        Term(name, tap, tap, GramLoss(), of=of, schedule=WeightSchedule(by_epoch=False, **schedules.get(name, {})))
        for name, (tap, of) in places.items()
    ]
    frozen = {
        name: FrozenTeacher(model, [term.teacher for term in terms if term.of == name])
        for name, model in models.items()
    }
    return student, models, Distillation(student, frozen, terms)


def num_forwards(models):
    return {name: getattr(model, 'num_forwards', 0) for name, model in models.items()}


def test_each_teacher_runs_once_however_many_terms_it_has():
    student, models, _ = two_teachers()
    losses = student(X, SAMPLES, mode='loss')
    assert num_forwards(models) == {'a': 1, 'b': 1}
    for name, tap, model in (('a1', 'body', models['a']), ('b1', 'body', models['b'])):
        feature_S, feature_T = student.get_submodule(tap)(X), model.get_submodule(tap)(X)
        torch.testing.assert_close(losses[f'loss_{name}'], GramLoss()(feature_S, feature_T))


def test_a_schedule_weighs_a_term():
    student, _, distillation = two_teachers(a1={'warmup': 4})
    full = student(X, SAMPLES, mode='loss')
    distillation.set_time(epoch=9, iteration=1)
    losses = student(X, SAMPLES, mode='loss')
    torch.testing.assert_close(losses['loss_a1'], full['loss_a1'] / 4)
    torch.testing.assert_close(losses['loss_a2'], full['loss_a2'])


def test_a_teacher_without_an_active_term_does_not_run():
    student, models, distillation = two_teachers(a1={'begin': 1}, a2={'begin': 2}, b1={'stop': 2})
    seen = []
    for iteration in range(3):
        distillation.set_time(epoch=0, iteration=iteration)
        losses = student(X, SAMPLES, mode='loss')
        seen.append((num_forwards(models), {name for name in ('loss_a1', 'loss_a2', 'loss_b1') if losses[name] != 0}))
    assert seen == [
        ({'a': 0, 'b': 1}, {'loss_b1'}),
        ({'a': 1, 'b': 2}, {'loss_a1', 'loss_b1'}),
        ({'a': 2, 'b': 2}, {'loss_a1', 'loss_a2'}),
    ]


def test_a_term_that_is_off_is_not_computed():
    class Forbidden(nn.Module):
        def forward(self, student, teacher):
            raise AssertionError

    schedule = WeightSchedule(begin=1)
    student, teacher, distillation = distilled([Term('gram', 'body', 'body', Forbidden(), schedule=schedule)])
    distillation.set_time(epoch=0, iteration=0)
    losses = student(X, SAMPLES, mode='loss')
    assert losses['loss_gram'] == 0
    assert teacher.modes == []
    losses['loss_cls'].backward()


def test_statistics_only_when_diagnosing():
    student, _, distillation = two_teachers(b1={'begin': 1})
    plain = student(X, SAMPLES, mode='loss')
    assert not [name for name in plain if 'loss' not in name and name != 'accuracy']
    distillation.diagnosing = True
    distillation.set_time(epoch=0, iteration=0)
    losses = student(X, SAMPLES, mode='loss')
    expected = {f'{kind}_{term}' for kind in ('share', 'cka', 'collapse') for term in ('a1', 'a2')}
    assert {name for name in losses if 'loss' not in name} == expected | {'accuracy'}
    total = losses['loss_cls'] + losses['loss_a1'] + losses['loss_a2']
    torch.testing.assert_close(losses['share_a1'], (losses['loss_a1'] / total).detach())
    assert distillation.shapes['a2'] == [((6, 4), (6, 5))]


def test_rehearsal_computes_all_terms_and_leaves_no_trace():
    class Drawing(GramLoss):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)

        def forward(self, student, teacher):
            return super().forward(student, teacher) * torch.rand((), generator=self.generator)

    loss = Drawing()
    student, _, distillation = distilled([Term('gram', 'body', 'body', loss, schedule=WeightSchedule(begin=5))])
    distillation.set_time(epoch=0, iteration=0)
    before, draws = copy.deepcopy(student.state_dict()), loss.generator.get_state()
    losses = distillation.rehearse(student, inputs=X, data_samples=SAMPLES, mode='loss')
    assert losses['loss_gram'] > 0
    assert distillation.shapes == {'gram': [((6, 4), (6, 5))]}
    assert torch.equal(loss.generator.get_state(), draws)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert distillation.num_steps == 0
    assert student(X, SAMPLES, mode='loss')['loss_gram'] == 0  # the schedule holds again
    assert distillation.num_steps == 1


def test_forwards_of_teachers_are_timed_on_request():
    student, _, distillation = two_teachers()
    distillation.stopwatches = {'a': Stopwatch(torch.device('cpu')), 'b': Stopwatch(torch.device('cpu'))}
    student(X, SAMPLES, mode='loss')
    assert all(watch.seconds() > 0 for watch in distillation.stopwatches.values())


def test_rehearsal_chooses_no_layers():
    term = Term('gram', ('body', 'body.0'), ('body', 'body'), GramLoss(), choice='adaptive')
    student, _, distillation = distilled([term])
    distillation.rehearse(student, inputs=X, data_samples=SAMPLES, mode='loss')
    assert term.layer_choice.mean is None
    assert student(X, SAMPLES, mode='loss')['loss_gram'] > 0
    assert term.layer_choice.mean is not None


def test_losses_are_told_the_time_and_the_predictions():
    seen = []

    class Asking(GramLoss):
        def forward(self, student, teacher, *, epoch, iteration, student_logits, teacher_logits):
            seen.append((epoch, iteration, student_logits, teacher_logits))
            return super().forward(student, teacher)

    student, teacher, distillation = distilled([Term('gram', 'body', 'body', Asking(), logits=('head', 'head'))])
    distillation.set_time(epoch=2, iteration=17)
    student(X, SAMPLES, mode='loss')
    ((epoch, iteration, logits_S, logits_T),) = seen
    assert (epoch, iteration) == (2, 17)
    torch.testing.assert_close(logits_S, student.head(student.body(X)))
    torch.testing.assert_close(logits_T, teacher.head(teacher.body(X)))
