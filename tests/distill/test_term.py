from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkd_ext.distill import Rows, Term


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


def seen_by_loss(maps=MAPS, iterations=(0, 1), **rows):
    """What a loss gets in each of some steps."""
    seen = []

    def forward(student, teacher):
        seen.append((student, teacher))
        return student.sum()

    a_term = Term('sp', 'neck', 'neck[0]', loss_module(forward), rows=Rows(**rows))
    for iteration in iterations:
        a_term(*maps, iteration=iteration)
    return seen


def test_pooled_maps():
    (student, teacher), _ = seen_by_loss(pooling='gap')
    torch.testing.assert_close(student, MAPS[0]['neck'].mean((2, 3)))
    torch.testing.assert_close(teacher, MAPS[1]['neck[0]'].mean((2, 3)))


def test_tokens_follow_from_the_iteration():
    first, second = seen_by_loss(tokens=2)
    (resumed,) = seen_by_loss(tokens=2, iterations=[1])
    assert [tuple(x.shape) for x in first] == [(4, 3), (4, 5)]
    assert not torch.equal(first[0], second[0])
    assert torch.equal(second[0], resumed[0])
    assert torch.equal(second[1], resumed[1])


def test_the_loss_is_the_mean_over_positions():
    student, teacher = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2)
    batches = []

    def forward(student, teacher, *, labels):
        batches.append((student, labels))
        return student.square().sum() + teacher.sum()

    a_term = Term('sp', 'neck', 'neck[0]', loss_module(forward), rows=Rows(positions=9))
    loss = a_term({'neck': student}, {'neck[0]': teacher}, SAMPLES[:2])
    coarse = torch.nn.functional.avg_pool2d(student, 2)
    torch.testing.assert_close(loss, (coarse.square().sum() + teacher.sum()) / 4)
    assert len(batches) == 4
    assert all(student.shape == (2, 3) and labels.tolist() == [4, -1] for student, labels in batches)


def test_rows_of_an_ordinary_term_are_untouched():
    assert seen_by_loss()[0][0] is MAPS[0]['neck']


@pytest.mark.parametrize('rows', [{'pooling': 'gap'}, {'tokens': 4}, {'positions': 4}])
def test_tensors_that_are_no_maps(rows):
    maps = {'neck': torch.ones(2, 3, 4, requires_grad=True)}, {'neck[0]': torch.ones(2, 3, 4)}
    with pytest.raises(ValueError, match=r"term 'sp': .* of shape \(N, C, H, W\) but got \(2, 3, 4\).* at 'neck'"):
        seen_by_loss(maps, **rows)


def test_labels_do_not_go_with_tokens():
    def forward(student, teacher, *, labels):
        return student.sum()

    with pytest.raises(TypeError, match=r"term 'sp': expected a loss of features alone for tokens=4.*\['labels'\]"):
        Term('sp', 'neck', 'neck', loss_module(forward), rows=Rows(tokens=4))


def test_tokens_have_no_optional_extras_of_samples():
    seen = {}

    def forward(student, teacher, *, iteration, sample_ids=None):
        seen.update(iteration=iteration, sample_ids=sample_ids)
        return student.sum()

    samples = [SimpleNamespace(sample_idx=place) for place in range(2)]
    Term('sp', 'neck', 'neck[0]', loss_module(forward), rows=Rows(tokens=4))(*MAPS, samples, iteration=5)
    assert seen == {'iteration': 5, 'sample_ids': None}


# Predictions


def test_logits_reach_a_loss_that_takes_them():
    def forward(student, teacher, *, student_logits, teacher_logits):
        return student.sum() * student_logits.sum() + teacher_logits.sum()

    a_term = Term('sp', 'neck', 'neck[0]', loss_module(forward), logits=('head', 'fc'))
    assert (a_term.student_taps, a_term.teacher_taps) == (('neck', 'head'), ('neck[0]', 'fc'))
    assert a_term({**STUDENT, 'head': torch.tensor(2.0)}, {**TEACHER, 'fc': torch.tensor(5.0)}).item() == 17


def test_logits_that_nothing_supplies():
    with pytest.raises(TypeError, match=r"term 'sp': expected taps of the logits .* write logits='head\.fc'"):
        term(lambda student, teacher, *, student_logits: student.sum())


def test_logits_that_nothing_takes():
    with pytest.raises(TypeError, match=r"term 'sp': expected a loss that takes logits but Loss does not; drop"):
        Term('sp', 'a', 'b', loss_module(lambda student, teacher: student.sum()), logits=('c', 'd'))


# Several pairs of layers

LAYERS = {'a': torch.ones(4, 2, requires_grad=True), 'b': torch.full((4, 2), 3.0, requires_grad=True)}


def test_equal_weights_are_the_mean_of_the_losses():
    a_term = Term('sp', ('a', 'b'), ('c', 'd'), loss_module(lambda student, teacher: (student * teacher).mean()))
    assert a_term.pairs == (('a', 'c'), ('b', 'd'))
    loss = a_term(LAYERS, {'c': torch.full((4, 2), 2.0), 'd': torch.ones(4, 2)})
    assert loss.item() == (2 + 3) / 2


def test_pairs_that_are_not_chosen_are_not_computed():
    seen = []

    def forward(student, teacher):
        seen.append(teacher)
        return student.sum()

    student = {'a': torch.randn(6, 3, requires_grad=True)}
    teacher = {'b': torch.randn(6, 3), 'c': 2 * student['a'].detach()}
    a_term = Term('sp', ('a', 'a'), ('b', 'c'), loss_module(forward), choice='cka')
    for _ in range(2):
        torch.testing.assert_close(a_term(student, teacher), student['a'].sum())
    assert [x is teacher['c'] for x in seen] == [True, True]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'choice': 'best'}, r"expected choice in \('uniform', 'normalized', 'cka', 'adaptive'\) but got 'best'"),
        ({'student': ('a', 'a'), 'teacher': ('b', 'b')}, 'expected every pair once'),
    ],
)
def test_bad_pairs(options, message):
    with pytest.raises(ValueError, match=f"term 'sp': {message}"):
        Term(**{'name': 'sp', 'student': 'a', 'teacher': 'b', 'loss': torch.nn.MSELoss(), **options})
