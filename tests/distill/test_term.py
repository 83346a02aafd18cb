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


MAPS = {'neck': torch.randn(2, 3, 4, 4, requires_grad=True)}, {'neck[0]': torch.randn(2, 5, 2, 2)}


def seen_by_loss(maps=MAPS, **options):
    """What a loss gets in each of two steps."""
    seen = []

    def forward(student, teacher):
        seen.append((student, teacher))
        return student.sum()

    a_term = Term('sp', 'neck', 'neck[0]', loss_module(forward), **options)
    for _ in range(2):
        a_term(*maps)
    return seen


def test_pooled_maps():
    (student, teacher), _ = seen_by_loss(pooling='gap')
    torch.testing.assert_close(student, MAPS[0]['neck'].mean((2, 3)))
    torch.testing.assert_close(teacher, MAPS[1]['neck[0]'].mean((2, 3)))


def test_tokens_are_drawn_anew_in_each_step_and_alike_in_each_run():
    first, second = seen_by_loss(tokens=2), seen_by_loss(tokens=2)
    assert [tuple(x.shape) for x in first[0]] == [(4, 3), (4, 5)]
    assert not torch.equal(first[0][0], first[1][0])
    assert torch.equal(first[0][0], second[0][0])
    assert torch.equal(first[1][1], second[1][1])


def test_rows_of_an_ordinary_term_are_untouched():
    assert seen_by_loss()[0][0] is MAPS[0]['neck']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'pooling': 'max'}, "expected pooling='gap' or none but got 'max'"),
        ({'tokens': 0}, 'expected tokens >= 1 but got 0'),
        ({'tokens': 4, 'pooling': 'gap'}, 'expected pooling or tokens but got both'),
    ],
)
def test_bad_rows(options, message):
    with pytest.raises(ValueError, match=f"term 'sp': {message}"):
        seen_by_loss(**options)


@pytest.mark.parametrize('options', [{'pooling': 'gap'}, {'tokens': 4}])
def test_tensors_that_are_no_maps(options):
    maps = {'neck': torch.ones(2, 3, 4, requires_grad=True)}, {'neck[0]': torch.ones(2, 3, 4)}
    with pytest.raises(ValueError, match=r"term 'sp': .* of shape \(N, C, H, W\) but got \(2, 3, 4\)"):
        seen_by_loss(maps, **options)


def test_labels_do_not_go_with_tokens():
    def forward(student, teacher, *, labels):
        return student.sum()

    with pytest.raises(TypeError, match=r"term 'sp': expected a loss of features alone for tokens=4.*use pooling"):
        Term('sp', 'neck', 'neck', loss_module(forward), tokens=4)
