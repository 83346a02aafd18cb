"""The checks name the caller, the argument, what was expected and what came."""

import math

import pytest
import torch

from mmkd_ext.ops.arguments import check_choice, check_dims, check_not_negative, check_pair, check_positive


def test_good_values_pass():
    check_positive('who', a=1, b=0.5)
    check_not_negative('who', a=0, b=0.5)
    check_choice('who', ('x', 'y'), word='x')
    check_dims('who', 'N D', x=torch.zeros(2, 3), y=torch.zeros(0, 1))
    check_pair('who', torch.zeros(2, 3), torch.full((2, 4, 4), torch.inf))


def refused(error, parts, check, *args, **kwargs):
    with pytest.raises(error) as raised:
        check('who', *args, **kwargs)
    message = str(raised.value)
    assert message.startswith('who: expected ')
    assert all(part in message for part in parts), message
    assert ' but got ' in message
    assert '; ' in message


def test_settings_that_are_refused():
    for value in (0, -1.0, math.nan, math.inf):
        refused(ValueError, ['size > 0', str(value)], check_positive, size=value)
    for value in (-1.0, math.nan, math.inf):
        refused(ValueError, ['size >= 0', str(value)], check_not_negative, size=value)
    for value in ('1', None, True):
        for check in (check_positive, check_not_negative):
            refused(TypeError, ['size', 'number', repr(value)], check, size=value)
    refused(ValueError, ['word', "('x', 'y')", "'z'"], check_choice, ('x', 'y'), word='z')


def test_shapes_that_are_refused():
    x = torch.zeros(2, 3)
    refused(ValueError, ['y of shape (N, D)', '(3,)'], check_dims, 'N D', x=x, y=torch.zeros(3))
    for teacher in (torch.zeros(4, 3), torch.zeros(3)):
        refused(ValueError, ['(N, ...)', '(2, 3)', str(tuple(teacher.shape))], check_pair, x, teacher)


def test_nan_is_named():
    bad = torch.tensor([[1.0, math.nan], [math.nan, 0.0]])
    refused(ValueError, ['teacher', 'NaN in 2 of 4'], check_pair, torch.zeros(2, 2), bad)
    refused(ValueError, ['student', 'NaN in 2 of 4'], check_pair, bad, bad)


def test_values_are_looked_at_on_the_cpu_only():
    check_pair('who', *torch.full((2, 3, 2), math.nan, device='meta'))
