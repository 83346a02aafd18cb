"""The sums of RKD by the formula in float64, and in parts; test_rkd.py has what they make of it."""

import torch

from mmkd_ext.functional import rkd_angle
from mmkd_ext.functional.rkd import angle_sum, distance_sum
from mmkd_ext.ops.distances import pairwise


def features():
    return torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)


def test_distances_and_their_slope():
    student_ND, teacher_ND = features()
    student, teacher = pairwise(student_ND, teacher_ND)
    total, slope_NN = distance_sum(student, teacher, 0.5, with_slope=True)
    square_NN = student.square_RN.clone().fill_diagonal_(1).requires_grad_()
    distance_NN, target_NN = square_NN.sqrt() * (1 - torch.eye(7)), teacher.square_RN.sqrt()
    gap_NN = distance_NN * 42 / distance_NN.sum() - target_NN * 42 / target_NN.sum()
    expected = torch.nn.functional.huber_loss(gap_NN, torch.zeros_like(gap_NN), reduction='sum', delta=0.5)
    expected.backward()
    torch.testing.assert_close(total, expected)
    off_diagonal_NN = ~torch.eye(7, dtype=torch.bool)
    # The slope of both orders of a pair.
    torch.testing.assert_close(slope_NN[off_diagonal_NN], 2 * square_NN.grad[off_diagonal_NN])


def test_angles_and_their_slope_in_parts():
    student, teacher = pairwise(*features())
    whole, slope_NN = angle_sum(student, teacher, 0.5, with_slope=True)
    parts = [angle_sum(student, teacher, 0.5, True, rows) for rows in (slice(0, 2), slice(2, 2), slice(2, 7))]
    torch.testing.assert_close(sum(part for part, _ in parts), whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(sum(slope for _, slope in parts), slope_NN, rtol=1e-12, atol=1e-12)


def test_a_vertex_alone_has_the_angles_at_it():
    student, teacher = pairwise(*features())
    total, slope = angle_sum(student, teacher, 1.0, False, slice(3, 4))
    assert slope is None
    cosines = []
    for square_NN in (student.square_RN, teacher.square_RN):
        arm = square_NN[3]
        cosine = (arm[:, None] + arm - square_NN) / (2 * (arm[:, None] * arm).sqrt())
        cosines.append(cosine.nan_to_num(0, 0, 0))
    torch.testing.assert_close(total, torch.nn.functional.huber_loss(*cosines, reduction='sum'))


def test_gradient_of_the_loss_in_parts():
    student, teacher = features()
    student.requires_grad_()
    whole = rkd_angle(student, teacher)
    parts = sum(rkd_angle(student, teacher, rows=rows) for rows in (slice(0, 5), slice(5, 7)))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (parts, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
