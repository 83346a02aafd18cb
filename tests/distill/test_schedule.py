import math

import pytest

from mmkd_ext.distill import WeightSchedule


def course(schedule, num):
    return [schedule.factor(epoch=time, iteration=1000) for time in range(num)]


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({'warmup': 4}, [0, 0.25, 0.5, 0.75, 1, 1]),
        ({'begin': 2}, [0, 0, 1, 1, 1, 1]),
        ({'begin': 1, 'warmup': 2}, [0, 0, 0.5, 1, 1, 1]),
        ({'stop': 3}, [1, 1, 1, 0, 0, 0]),
        ({'decay_end': 4}, [1, 0.75, 0.5, 0.25, 0, 0]),
        ({'decay_begin': 2, 'decay_end': 4, 'final_factor': 0.5}, [1, 1, 1, 0.75, 0.5, 0.5]),
        ({'warmup': 2, 'decay_end': 4, 'stop': 5}, [0, 0.5, 1, 0.5, 0, 0]),
        (
            {'decay': 'cosine', 'decay_end': 4, 'final_factor': 0.2},
            [0.2 + 0.8 * (1 + math.cos(math.pi * min(t, 4) / 4)) / 2 for t in range(6)],
        ),
    ],
)
def test_course(settings, expected):
    assert course(WeightSchedule(**settings), 6) == pytest.approx(expected)


def test_iterations():
    schedule = WeightSchedule(by_epoch=False, warmup=10)
    assert schedule.factor(epoch=99, iteration=5) == 0.5


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'begin': -1}, 'begin and warmup >= 0'),
        ({'decay': 'step', 'decay_end': 2}, "expected decay in .* but got 'step'"),
        ({'decay_begin': 2}, 'expected decay_end'),
        ({'final_factor': 0.5}, 'expected decay_end'),
        ({'warmup': 5, 'decay_end': 5}, 'decay_end after the decay begins at 5 but got 5'),
        ({'final_factor': -1.0, 'decay_end': 5}, 'final_factor >= 0'),
        ({'begin': 3, 'stop': 3}, 'stop after begin at 3'),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        WeightSchedule(**settings)


def test_description():
    assert str(WeightSchedule()) == 'constant'
    schedule = WeightSchedule(begin=1, warmup=2, decay='cosine', decay_end=9, final_factor=0.1, stop=10)
    assert str(schedule) == 'from 1, warm-up 2, cosine to 0.1 in 3..9, stop at 10 (epochs)'
