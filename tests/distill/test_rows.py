import pytest
import torch

from mmkd_ext.distill import Rows
from mmkd_ext.ops.maps import pool_map

STUDENT, TEACHER = torch.randn(3, 2, 4, 4), torch.randn(3, 5, 2, 2)


def shapes(rows, iteration=0):
    return [(tuple(s.shape), tuple(t.shape)) for s, t in rows(STUDENT, TEACHER, iteration)]


def test_what_a_sample_is():
    assert shapes(Rows()) == [((3, 2, 4, 4), (3, 5, 2, 2))]
    assert shapes(Rows(pooling='gap')) == [((3, 2), (3, 5))]
    assert shapes(Rows(tokens=3)) == [((9, 2), (9, 5))]
    assert shapes(Rows(positions=3)) == [((3, 2), (3, 5))] * 3
    torch.testing.assert_close(Rows(pooling='gap')(STUDENT, TEACHER, 0)[0][0], pool_map(STUDENT))


@pytest.mark.parametrize('rows', [Rows(tokens=1), Rows(positions=1)])
def test_draws_follow_from_the_iteration(rows):
    draws = [rows(STUDENT, TEACHER, iteration)[0][1] for iteration in range(12)]
    assert all(torch.equal(rows(STUDENT, TEACHER, k)[0][1], draws[k]) for k in (11, 3))
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) > 2


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'pooling': 'max'}, "expected pooling='gap' or none but got 'max'"),
        ({'tokens': 0}, 'expected tokens >= 1 but got 0'),
        ({'positions': -1}, 'expected positions >= 1 but got -1'),
        ({'tokens': 4, 'pooling': 'gap'}, r"expected one of .* but got \['pooling', 'tokens'\]; drop all but one"),
        ({'tokens': 4, 'positions': 4}, r"expected one of .* but got \['tokens', 'positions'\]"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        Rows(**settings)


def test_in_words():
    rows = (Rows(), Rows(pooling='gap'), Rows(tokens=8), Rows(positions=2))
    assert [str(r) for r in rows] == ['', ' after gap', ' of 8 tokens', ' at 2 positions']
