from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkd_ext.distill.term import Extras


def extras_of(forward):
    return Extras.of(type('Loss', (nn.Module,), {'forward': staticmethod(forward)})())


SAMPLES = [SimpleNamespace(gt_label=torch.tensor([place % 2]), sample_idx=10 * place) for place in range(3)]
KNOWN = {'epoch': 4, 'iteration': 40, 'student_logits': None, 'teacher_logits': None}


def test_reads_what_the_signature_names():
    extras = extras_of(lambda student, teacher, *, epoch, labels=None, weight=1.0: student)
    assert (extras.required, extras.optional) == (('epoch',), ('labels',))


def test_collects_what_was_asked_for():
    extras = extras_of(lambda student, teacher, *, labels, sample_ids, data_samples, epoch, iteration: student)
    values = extras.collect(SAMPLES, KNOWN)
    assert values['labels'].tolist() == [0, 1, 0]
    assert values['sample_ids'].tolist() == [0, 10, 20]
    assert values['sample_ids'].dtype == torch.int64
    assert values['data_samples'] is SAMPLES
    assert (values['epoch'], values['iteration']) == (4, 40)


def test_nothing_is_looked_for_without_need():
    assert extras_of(lambda student, teacher: student).collect(None, KNOWN) == {}


@pytest.mark.parametrize('samples', [None, [], [SimpleNamespace()], [*SAMPLES, SimpleNamespace()]])
def test_optional_extras_keep_their_defaults(samples):
    extras = extras_of(lambda student, teacher, *, labels=None, sample_ids=None, student_logits=None: student)
    assert extras.collect(samples, KNOWN) == {}


@pytest.mark.parametrize('samples', [None, [SimpleNamespace()], [*SAMPLES, SimpleNamespace()]])
@pytest.mark.parametrize(
    ('forward', 'message'),
    [
        (lambda student, teacher, *, labels: student, 'expected data samples with a gt_label each'),
        (
            lambda student, teacher, *, sample_ids: student,
            r"with a sample_idx each.* add 'sample_idx' to the meta_keys .* PackInputs\(meta_keys=",
        ),
    ],
)
def test_what_the_batch_has_not(forward, message, samples):
    with pytest.raises(RuntimeError, match=message):
        extras_of(forward).collect(samples, KNOWN)


def test_samples_that_there_are_not():
    with pytest.raises(RuntimeError, match='expected data samples but the batch has none'):
        extras_of(lambda student, teacher, *, data_samples: student).collect(None, KNOWN)


def test_a_loss_that_asks_for_more():
    with pytest.raises(TypeError, match=r"expected a loss with forward\(student, teacher, \*, .* 'mask'"):
        extras_of(lambda student, teacher, *, mask: student)


def test_positions_have_nothing_of_samples():
    extras = extras_of(lambda student, teacher, *, iteration, labels=None, epoch=0: student).of_positions()
    assert (extras.required, extras.optional) == (('iteration',), ('epoch',))
    with pytest.raises(TypeError, match=r"takes \['labels'\], one a sample"):
        extras_of(lambda student, teacher, *, labels, epoch: student).of_positions()
