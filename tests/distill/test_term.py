from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkd_ext.distill import Term


def loss_module(forward):
    """A loss whose forward has the signature of ``forward``."""
    return type('Loss', (nn.Module,), {'forward': staticmethod(forward)})()


def term(forward):
    return Term('sp', 'neck', 'neck[0]', loss_module(forward))


STUDENT = {'neck': torch.ones(3, 2, requires_grad=True)}
TEACHER = {'neck[0]': torch.full((3, 2), 3.0)}
SAMPLES = [SimpleNamespace(gt_label=torch.tensor([label])) for label in (4, -1, 2)]


def test_calls_the_loss_with_student_then_teacher():
    value = term(lambda student, teacher: (2 * student - teacher).sum())(STUDENT, TEACHER)
    assert value.item() == -6


def test_passes_only_the_extras_that_the_loss_names():
    seen = {}

    def forward(student, teacher, *, labels, data_samples=None):
        seen.update(labels=labels, data_samples=data_samples)
        return student.sum()

    term(forward)(STUDENT, TEACHER, SAMPLES)
    assert seen['labels'].tolist() == [4, -1, 2]
    assert seen['data_samples'] is SAMPLES


def test_optional_arguments_of_the_loss_keep_their_defaults():
    value = term(lambda pred, target, weight=None, avg_factor=7: pred.sum() * avg_factor)(STUDENT, TEACHER, SAMPLES)
    assert value.item() == 42


@pytest.mark.parametrize(
    'forward',
    [
        lambda student, teacher, *, weights: student,
        lambda student, teacher, mask: student,
        lambda student: student,
        lambda student, *, teacher: student,
    ],
)
def test_a_loss_that_asks_for_more_is_refused_at_once(forward):
    with pytest.raises(TypeError, match=r"term 'sp': expected a loss with forward\(student, teacher"):
        term(forward)


def test_a_loss_with_trainable_parameters_is_refused():
    class Loss(nn.Linear):
        def forward(self, student, teacher):
            return student.sum()

    with pytest.raises(
        ValueError, match=r"term 'sp': .* without trainable parameters but Loss has \['weight', 'bias'\]"
    ):
        Term('sp', 'neck', 'neck', Loss(2, 2))
    Term('sp', 'neck', 'neck', Loss(2, 2).requires_grad_(False))


def test_student_without_gradient():
    with pytest.raises(RuntimeError, match=r"term 'sp': .* tap 'neck' .* frozen layer, .*use_reentrant=False"):
        term(lambda student, teacher: student.sum())({'neck': torch.ones(3, 2)}, TEACHER)


def test_loss_that_is_no_scalar():
    with pytest.raises(RuntimeError, match=r"term 'sp': expected a scalar loss but got shape \(3,\)"):
        term(lambda student, teacher: student.sum(1))(STUDENT, TEACHER)


def test_an_error_of_the_loss_names_term_and_shapes():
    def forward(student, teacher):
        raise ValueError('expected more')

    with pytest.raises(ValueError, match=r"term 'sp': expected more \(student \(3, 2\) at 'neck', teacher \(3, 2\) at"):
        term(forward)(STUDENT, TEACHER)


def test_a_name_that_mmengine_would_add_up():
    with pytest.raises(ValueError, match="term 'my_loss': expected a name without 'loss'"):
        Term('my_loss', 'neck', 'neck', loss_module(lambda student, teacher: student.sum()))


def test_labels_stay_on_their_device():
    seen = {}

    def forward(student, teacher, *, labels):
        seen['device'] = labels.device.type
        return student.sum()

    student = {'neck': torch.ones(3, 2, device='meta', requires_grad=True)}
    term(forward)(student, {'neck[0]': torch.ones(3, 2, device='meta')}, SAMPLES)
    assert seen['device'] == 'cpu'


@pytest.mark.parametrize('samples', [None, [SimpleNamespace()]])
def test_labels_that_the_batch_has_not(samples):
    with pytest.raises(RuntimeError, match=r"term 'sp': expected data samples with a gt_label"):
        term(lambda student, teacher, *, labels: student.sum())(STUDENT, TEACHER, samples)
