import pytest
from torch import nn

from mmkd_ext.distill import WeightSchedule
from mmkd_ext.hooks.distill_terms import build_term


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
    assert build_term('sp', {'tap': 'a', 'loss': LOSS, 'tokens': 8}, ['x']).tokens == 8
    assert build_term('sp', {'tap': 'a', 'loss': LOSS, 'pooling': 'gap'}, ['x']).pooling == 'gap'


@pytest.mark.parametrize(
    ('spec', 'error', 'message'),
    [
        ({'tab': 'a', 'loss': LOSS}, TypeError, r"got the keys \['loss', 'tab'\]; did you mean tap\?"),
        ({'tap': 'a', 'loss': LOSS, 'shedule': {}}, TypeError, r'did you mean schedule\?'),
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
    ],
)
def test_refuses(spec, error, message):
    with pytest.raises(error, match=rf"(?s)term 'sp': .*{message}"):
        build_term('sp', spec, ['x', 'y'])
