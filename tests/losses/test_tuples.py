"""TupleRelationLoss draws its tuples anew in every step, alike wherever the seed is."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_ext.functional import rkd_angle


def build(**settings):
    return MODELS.build(dict(type='mmkd_ext.TupleRelationLoss', **settings))


def test_many_tuples_approach_rkd():
    student, teacher = torch.randn(8, 4), torch.randn(8, 5)
    loss = build(potential='angle', order=3, num_tuples=200_000, loss_weight=2.0)
    expected = 2 * rkd_angle(student, teacher, reduction='distinct')
    torch.testing.assert_close(loss(student, teacher), expected, rtol=0.02, atol=0)


@pytest.mark.parametrize(('potential', 'order'), [('distance', 2), ('analogy', 4), ('simplex', 5)])
def test_steps_differ_and_processes_agree(potential, order):
    student, teacher = torch.randn(8, 4), torch.randn(8, 5)
    loss = build(potential=potential, order=order, num_tuples=64, seed=7)
    other = copy.deepcopy(loss)
    first, second = loss(student, teacher), loss(student, teacher)
    assert first != second
    assert first == other(student, teacher)


def test_fewer_samples_than_a_tuple_has():
    student = torch.randn(3, 4, requires_grad=True)
    loss = build(potential='simplex', order=4)(student, torch.randn(3, 5))
    loss.backward()
    assert loss == 0


def test_settings_are_shown():
    assert "potential='simplex', order=4, num_tuples=4096, delta=1.0, seed=0" in repr(build())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(potential='volume'), 'expected potential in'),
        (dict(potential='angle', order=4), r"expected order in \(3,\) for 'angle' but got 4"),
        (dict(num_tuples=0), 'expected num_tuples > 0'),
        (dict(delta=-1.0), 'expected delta > 0'),
    ],
)
def test_bad_setting(settings, message):
    with pytest.raises(ValueError, match=f'TupleRelationLoss: {message}'):
        build(**settings)
