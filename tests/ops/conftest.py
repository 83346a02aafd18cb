"""The sum of angles by brute force: all cosines at once from squared distances, the slope by autograd."""

import pytest
import torch


def squared_distances(x_ND):
    return (x_ND - x_ND[:, None]).square().sum(dim=-1)


def brute_force(student_NN, teacher_NN, delta, vertices):
    """Loss, and its derivative in the squared distance of each pair."""
    leaf_NN = student_NN.double().clone().requires_grad_()
    cosines = []
    for square_NN in (leaf_NN, teacher_NN.double()):
        arm_VN = square_NN[vertices]
        is_arm_VN = arm_VN > 0
        length_VN = torch.where(is_arm_VN, arm_VN, 1).sqrt()
        numerator_VNN = arm_VN[:, :, None] + arm_VN[:, None] - square_NN
        cosine_VNN = numerator_VNN / (2 * length_VN[:, :, None] * length_VN[:, None])
        cosines.append(cosine_VNN * is_arm_VN[:, :, None] * is_arm_VN[:, None])
    loss = torch.nn.functional.huber_loss(*cosines, reduction='sum', delta=delta)
    loss.backward()
    return loss.detach(), leaf_NN.grad + leaf_NN.grad.T


@pytest.fixture
def check_angle_sum():
    """Compare an implementation on random batches with duplicates; ``rtol`` is relative to the largest slope."""

    def check(angle_sum, num_samples, vertices=None, *, dtype=torch.float64, delta=0.3, rtol=1e-11):
        student_ND, teacher_ND = (torch.randn(num_samples, d, dtype=torch.float64) for d in (5, 8))
        student_ND[1] = student_ND[0]
        squares = [squared_distances(x_ND).to(dtype) for x_ND in (student_ND, teacher_ND)]
        vertices = vertices or slice(0, num_samples)
        expected, expected_NN = brute_force(*squares, delta, vertices)
        loss, slope_NN = angle_sum(*squares, delta, True, vertices)
        assert loss.dtype == torch.float64
        assert slope_NN.dtype == dtype
        torch.testing.assert_close(loss, expected, rtol=rtol, atol=rtol)
        both_NN = 2 * (slope_NN + slope_NN.T).double()
        is_pair_NN = ~torch.eye(num_samples, dtype=torch.bool)
        atol = rtol * float(expected_NN.abs().max())
        torch.testing.assert_close(both_NN[is_pair_NN], expected_NN[is_pair_NN], rtol=0, atol=atol)
        value, none = angle_sum(*squares, delta, False, vertices)
        assert none is None
        torch.testing.assert_close(value, loss, rtol=rtol, atol=rtol)

    return check
