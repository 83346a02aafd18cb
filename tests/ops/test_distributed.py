"""Samples, sums and shares over two processes against one process with the whole batch, in float64."""

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmkd_ext.functional import similarity_preserving
from mmkd_ext.ops.distributed import gather_with_grad, joint_count, log_share, num_processes, own_rows, sum_with_grad


def start(rank, folder, check, *args):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    check(rank, *args)
    distributed.destroy_process_group()


def in_two_processes(folder, check, *args):
    torch.multiprocessing.start_processes(start, (folder, check, *args), nprocs=2, start_method='fork')


def whole_batch(num_samples):
    torch.manual_seed(0)
    return torch.randn(num_samples, 4, 3, dtype=torch.float64), torch.randn(num_samples, 5, dtype=torch.float64)


def check_value_and_gradient(rank, shares):
    student, teacher = whole_batch(sum(shares))
    own_student = student.split(shares)[rank].clone().requires_grad_()
    gathered_student, gathered_teacher = map(gather_with_grad, (own_student, teacher.split(shares)[rank]))
    assert torch.equal(gathered_student, student)
    assert torch.equal(gathered_teacher, teacher)
    assert not gathered_teacher.requires_grad
    similarity_preserving(gathered_student, gathered_teacher).backward()
    similarity_preserving(student.requires_grad_(), teacher).backward()
    # One copy of the loss on each process: the mean over processes takes the factor out again.
    torch.testing.assert_close(own_student.grad, 2 * student.grad.split(shares)[rank], rtol=1e-12, atol=1e-15)


def check_update_under_ddp(rank, shares):
    inputs, teacher = whole_batch(sum(shares))
    model = nn.Linear(3, 2, dtype=torch.float64)
    replica = DistributedDataParallel(nn.Linear(3, 2, dtype=torch.float64))
    replica.module.load_state_dict(model.state_dict())
    features = gather_with_grad(replica(inputs.split(shares)[rank]))
    similarity_preserving(features, gather_with_grad(teacher.split(shares)[rank])).backward()
    similarity_preserving(model(inputs), teacher).backward()
    torch.testing.assert_close(replica.module.weight.grad, model.weight.grad, rtol=1e-12, atol=1e-15)


def check_other_dtypes(rank, shares):
    labels = torch.arange(sum(shares)) - 1
    assert torch.equal(gather_with_grad(labels.split(shares)[rank]), labels)
    for dtype in (torch.float16, torch.bfloat16):
        own = torch.ones(shares[rank], 2, dtype=dtype, requires_grad=True)
        gathered = gather_with_grad(own)
        assert gathered.dtype == dtype
        gathered.sum().backward()
        assert own.grad.dtype == dtype
        assert (own.grad == 2).all()


def check_sum(rank):
    """Backward of a sum hands everybody's gradient to every part."""
    for own in (torch.tensor(2.0 + rank), torch.full((3, 2), 2.0 + rank)):
        own.requires_grad_()
        total = sum_with_grad(own)
        assert torch.equal(total, torch.full_like(own, 5))
        assert (own == 2 + rank).all()
        (total * (10 + rank)).sum().backward()
        assert torch.equal(own.grad, torch.full_like(own, 21))


def check_count(rank):
    like = torch.zeros(2, dtype=torch.float64)
    assert joint_count(3 * rank, like) == 3
    assert joint_count(3 * rank, like).dtype == torch.float64
    assert joint_count(0, like) == 1


def check_softmax_over_all_samples(rank, shares):
    """Of own samples, times the share, against that of all; scores whose exponentials leave float64."""
    scores = 300 * torch.randn(3, sum(shares), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = scores.split(shares, dim=1)[rank].clone().requires_grad_()
    weights = own.softmax(dim=1) * log_share(own, 1).exp()
    expected = scores.requires_grad_().softmax(dim=1)
    torch.testing.assert_close(weights, expected.split(shares, dim=1)[rank], rtol=1e-12, atol=0)
    factors = torch.arange(expected.numel(), dtype=torch.float64).view_as(expected)
    (weights * factors.split(shares, dim=1)[rank]).sum().backward()
    (expected * factors).sum().backward()
    torch.testing.assert_close(own.grad, scores.grad.split(shares, dim=1)[rank], rtol=1e-9, atol=1e-12)


def check_share_of_nothing(rank):
    assert torch.isfinite(log_share(torch.zeros(2, 0), 1)).all()


def check_rows(rank):
    assert num_processes() == 2
    assert [own_rows(count) for count in (0, 1, 5)] == [
        [slice(0, 0), slice(0, 0), slice(0, 2)],
        [slice(0, 0), slice(0, 1), slice(2, 5)],
    ][rank]


def check_shapes_that_differ(rank):
    with pytest.raises(ValueError, match=r'samples of one shape on all processes but got \[\(2, 3\), \(2, 4\)\]'):
        gather_with_grad(torch.zeros(2, 3 + rank))


def check_exact(rank):
    for shares in ((4, 4), (5, 2), (1, 3), (0, 4)):
        check_value_and_gradient(rank, shares)
        check_update_under_ddp(rank, shares)


def test_exact(tmp_path):
    in_two_processes(tmp_path, check_exact)


def test_labels_and_half_precision(tmp_path):
    in_two_processes(tmp_path, check_other_dtypes, (3, 2))


def check_parts(rank):
    check_sum(rank)
    check_count(rank)
    check_share_of_nothing(rank)
    check_rows(rank)
    for shares in ((4, 4), (5, 2), (0, 3)):
        check_softmax_over_all_samples(rank, shares)


def test_sums_counts_shares_and_rows(tmp_path):
    in_two_processes(tmp_path, check_parts)


def test_shapes_that_differ_are_refused_on_all_processes(tmp_path):
    in_two_processes(tmp_path, check_shapes_that_differ)


def test_one_process_gets_its_own_tensor(tmp_path):
    x = torch.randn(3, 2, requires_grad=True)
    assert gather_with_grad(x) is x
    assert sum_with_grad(x) is x
    assert [joint_count(count, x) for count in (0, 3)] == [1, 3]
    assert log_share(x, 0) == 0
    assert own_rows(3) == slice(0, 3)
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    assert gather_with_grad(x) is x
