import pytest
from torch import nn

from mmkd_ext.distill import Rows, WeightSchedule
from mmkd_ext.hooks.distill_hook import build_term


class Loss(nn.Module):
    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student, teacher):
        return student.sum()


LOSS = {'type': Loss, 'loss_weight': 3.0}


def test_one_tap_for_both():
    term = build_term('sp', {'tap': 'neck', 'loss': LOSS}, ['teacher'])
    assert (term.student, term.teacher, term.of, term.agreement) == ('neck', 'neck', 'teacher', False)
    assert term.schedule == WeightSchedule()
    assert term.loss.loss_weight == 3.0


def test_everything():
    spec = {'student': 'a', 'teacher': 'b', 'loss': LOSS, 'of': 'y', 'schedule': {'warmup': 2}, 'agreement': True}
    term = build_term('sp', spec, ['x', 'y'])
    assert (term.student, term.teacher, term.of, term.agreement) == ('a', 'b', 'y', True)
    assert term.schedule == WeightSchedule(warmup=2)
    for rows in ({'tokens': 8}, {'pooling': 'gap'}, {'positions': 4}):
        assert build_term('sp', {'tap': 'a', 'loss': LOSS, **rows}, ['x']).rows == Rows(**rows)


def test_pairs_of_layers():
    term = build_term('sp', {'pairs': [['a', 'b'], ('a', 'c')], 'choice': 'cka', 'loss': LOSS}, ['x'])
    assert term.pairs == (('a', 'b'), ('a', 'c'))
    assert term.choice == 'cka'
    assert build_term('sp', {'pairs': [('a', 'b')], 'loss': LOSS}, ['x']).choice == 'uniform'


class LogitLoss(Loss):
    def forward(self, student, teacher, *, student_logits, teacher_logits):
        return student.sum()


@pytest.mark.parametrize(
    ('logits', 'taps'), [('head.fc', ('head.fc', 'head.fc')), ({'student': 'a', 'teacher': 'b'}, ('a', 'b'))]
)
def test_logits(logits, taps):
    assert build_term('sp', {'tap': 'neck', 'loss': {'type': LogitLoss}, 'logits': logits}, ['x']).logits == taps


@pytest.mark.parametrize(
    ('spec', 'error', 'message'),
    [
        ({'tab': 'a', 'loss': LOSS}, TypeError, r"got the keys \['loss', 'tab'\]; did you mean one of \['tap'"),
        ({'tap': 'a', 'loss': LOSS, 'shedule': {}}, TypeError, r"did you mean one of \['schedule'"),
        ({'tap': 'a'}, TypeError, r"expected dict\(tap=.*got the keys \['tap'\]$"),
        ({'tap': 'a', 'loss': {**LOSS, 'los_weight': 1}}, TypeError, 'los_weight'),
        (
            {'tap': 'a', 'loss': {'type': 'mmkd_ext.RKDAngelLoss'}},
            KeyError,
            r"RKDAngelLoss is not in .*did you mean one of \['RKDAngleLoss'",
        ),
        ({'tap': 'a', 'loss': {'type': 'mmkd_ext.SoftTargetLoss', 'temperature': -1.0}}, ValueError, 'temperature > 0'),
        ({'tap': 'a', 'loss': LOSS, 'schedule': {'warm_up': 3}}, TypeError, 'warm_up'),
        ({'tap': 'a', 'loss': LOSS, 'schedule': {'begin': 3, 'stop': 2}}, ValueError, 'stop after begin'),
        ({'tap': 'a', 'loss': LOSS, 'of': 'z'}, KeyError, r"one of the teachers \['x', 'y'\] but got 'z'"),
        ({'tap': 'a', 'loss': LOSS}, KeyError, r"one of the teachers \['x', 'y'\] but got None"),
        ({'tap': 'a', 'loss': LOSS, 'choice': 'cka'}, TypeError, r'got the keys'),
        ({'tap': 'a', 'pairs': [('a', 'b')], 'loss': LOSS}, TypeError, r'got the keys'),
        ({'pairs': ['ab', 'cd'], 'loss': LOSS}, ValueError, r"expected pairs of taps, .* but got \['ab', 'cd'\]"),
        ({'pairs': [], 'loss': LOSS}, ValueError, r'expected pairs of taps, .* but got \[\]'),
        ({'pairs': [('a', 'b')], 'choice': 'best', 'loss': LOSS, 'of': 'x'}, ValueError, 'expected choice in'),
        (
            {'tap': 'a', 'loss': LOSS, 'of': 'x', 'logits': {'student': 'b'}},
            TypeError,
            'expected logits=... to be a tap',
        ),
        ({'tap': 'a', 'loss': LOSS, 'tokens': 3, 'positions': 3}, ValueError, 'expected one of pooling, tokens and'),
    ],
)
def test_refuses(spec, error, message):
    with pytest.raises(error, match=rf"(?s)term 'sp': .*{message}"):
        build_term('sp', spec, ['x', 'y'])
