"""match_channels: orthonormal, fixed, and of the wider side only."""

import pytest
import torch

from mmkd_ext.functional import cskd as projection
from mmkd_ext.functional.cskd import match_channels


def test_equal_channels_come_back_as_they_are():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    assert match_channels(student, teacher) == (student, teacher)


@pytest.mark.parametrize('rest', [(), (2, 3)])
def test_the_wider_side_is_projected(rest):
    narrow, wide = torch.randn(3, 4, *rest), torch.randn(3, 10, *rest)
    for student, teacher in ((narrow, wide), (wide, narrow)):
        results = match_channels(student, teacher)
        assert [x.shape for x in results] == [narrow.shape] * 2
        assert any(x is narrow for x in results)


def test_directions_are_orthonormal():
    identity = torch.eye(10, dtype=torch.float64)
    basis, _ = match_channels(identity, torch.empty(10, 4, dtype=torch.float64))
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-14)


def test_directions_do_not_depend_on_the_random_state():
    x, narrow = torch.randn(2, 9, dtype=torch.float64), torch.empty(2, 3, dtype=torch.float64)
    first, _ = match_channels(x, narrow)
    projection._orthonormal_columns.cache_clear()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    second, _ = match_channels(x, narrow)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_position_of_a_map_is_projected_alike():
    wide, narrow = torch.randn(2, 6, 3, 3), torch.empty(2, 2, 3, 3)
    projected, _ = match_channels(wide, narrow)
    at_position, _ = match_channels(wide[:, :, 1, 2], narrow[:, :, 1, 2])
    torch.testing.assert_close(projected[:, :, 1, 2], at_position)


def test_gradient_reaches_a_wider_student():
    student = torch.randn(2, 6, requires_grad=True, dtype=torch.float64)
    teacher = torch.empty(2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: match_channels(x, teacher)[0], (student,))
