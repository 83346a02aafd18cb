"""The Triton kernels under Triton's interpreter, on a CPU, against brute force; and on a GPU where there is one.

Triton chooses its interpreter when it is imported, by an environment variable: a process of its own has that.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from mmkd_ext.functional import rkd_angle
from mmkd_ext.ops.geometry import angle_path

pytest.importorskip('triton')


@pytest.fixture(scope='module')
def interpreted():
    """``angle_sum_triton`` as the interpreter runs it."""
    from mmkd_ext.ops.angle_triton import angle_sum_triton

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_INTERPRET', '1')
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            yield lambda *arguments: pool.submit(angle_sum_triton, *arguments).result(timeout=120)


@pytest.fixture
def exact(interpreted):
    return lambda *arguments: interpreted(*arguments, True)


@pytest.mark.parametrize('num_samples', [3, 32, 70])
def test_brute_force_in_float64(exact, check_angle_sum, num_samples):
    check_angle_sum(exact, num_samples, slice(0, 3))


@pytest.mark.parametrize('num_samples', [3, 20])
def test_brute_force_in_float32(interpreted, check_angle_sum, num_samples):
    check_angle_sum(interpreted, num_samples, rtol=1e-5)


@pytest.mark.parametrize('vertices', [slice(0, 3), slice(2, 11), slice(4, 4)], ids=str)
def test_some_vertices(exact, check_angle_sum, vertices):
    check_angle_sum(exact, 11, vertices, delta=2.5)


@pytest.mark.parametrize('spread', [1e-3, 1e-5])
def test_near_duplicates_are_taken_in_float64(interpreted, exact, spread):
    from mmkd_ext.ops.angle_triton import _by_precision

    x_ND = torch.randn(2, 12, 6, dtype=torch.float64)
    x_ND[0, 1::4] = x_ND[0, ::4] + spread * torch.randn(3, 6, dtype=torch.float64)
    squares = [(x - x[:, None]).square().sum(dim=-1) for x in x_ND]
    order_V, bounds = _by_precision(*squares, slice(0, 12), False)
    assert set(order_V[bounds[1] :].tolist()) >= {0, 1, 4, 5, 8, 9}
    assert bounds.tolist() == [0, int(bounds[1]), 12]
    expected, expected_NN = exact(*squares, 1.0, True, slice(0, 12))
    loss, slope_NN = interpreted(*squares, 1.0, True, slice(0, 12))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    # What a float32 cosine would lose here is of the size of the slope itself.
    assert (slope_NN - expected_NN).norm() < 1e-5 * expected_NN.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_on_a_gpu_the_loss_is_that_on_a_cpu(dtype):
    assert angle_path('cuda', torch.float64) == 'triton'
    student_ND, teacher_ND = torch.randn(100, 30, dtype=dtype), torch.randn(100, 40, dtype=dtype)
    student_ND[1] = student_ND[0] + 1e-4
    results = []
    for device in ('cpu', 'cuda'):
        leaf_ND = student_ND.to(device).requires_grad_()
        loss = rkd_angle(leaf_ND, teacher_ND.to(device))
        loss.backward()
        results.append((loss.detach().cpu(), leaf_ND.grad.cpu()))
    rtol = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(results[1][0], results[0][0], rtol=rtol, atol=0)
    assert (results[1][1] - results[0][1]).norm() < rtol * results[0][1].norm()
