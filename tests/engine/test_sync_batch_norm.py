"""Batch norm over two processes against torch's own on the whole batch, in float64."""

import pytest
import torch
from torch import distributed, nn

from mmkd_ext.engine.cpu import SyncBatchNorm, convert_sync_batch_norm

KINDS = {
    'plain': {},
    'without scale and shift': {'affine': False},
    'cumulative': {'momentum': None},
    'no running statistics': {'track_running_stats': False},
}


def start(rank, folder, check):
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    check(rank)
    distributed.destroy_process_group()


def in_two_processes(folder, check):
    torch.multiprocessing.start_processes(start, (folder, check), nprocs=2, start_method='fork')


def make(settings):
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(3, **settings).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


def check_training(rank):
    for settings in KINDS.values():
        whole, own = make(settings), convert_sync_batch_norm(make(settings))
        for shares in ((3, 3), (5, 1), (0, 2)):
            torch.manual_seed(2)
            images = 1000 + torch.randn(sum(shares), 3, 2, 2, dtype=torch.float64)
            factors = torch.randn_like(images)
            own_images = images.split(shares)[rank].clone().requires_grad_()
            output, expected = own(own_images), whole(images.requires_grad_())
            torch.testing.assert_close(output, expected.split(shares)[rank], rtol=1e-9, atol=1e-9)
            own.zero_grad(), whole.zero_grad()
            (output * factors.split(shares)[rank]).sum().backward()
            (expected * factors).sum().backward()
            torch.testing.assert_close(own_images.grad, images.grad.split(shares)[rank], rtol=1e-8, atol=1e-9)
            for found, parameter in zip(own.parameters(), whole.parameters(), strict=True):
                distributed.all_reduce(found.grad)
                torch.testing.assert_close(found.grad, parameter.grad, rtol=1e-9, atol=1e-9)
            assert own.state_dict().keys() == whole.state_dict().keys()
            for name, value in whole.state_dict().items():
                torch.testing.assert_close(own.state_dict()[name], value, rtol=1e-9, atol=1e-9)


def check_evaluation(rank):
    """No message: one process alone may evaluate."""
    norm = convert_sync_batch_norm(make({})).eval()
    if rank == 0:
        images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        assert torch.equal(norm(images), make({}).eval()(images))


def check_half_precision(rank):
    norm = SyncBatchNorm(2)
    with torch.autocast('cpu', torch.bfloat16):
        output = norm((torch.arange(8.0).view(4, 2) + rank).bfloat16())
    assert output.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.35, 0.45]))


@pytest.mark.parametrize('check', [check_training, check_evaluation, check_half_precision])
def test_two_processes(tmp_path, check):
    in_two_processes(tmp_path, check)


@pytest.mark.parametrize('kind', [nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm], ids=lambda kind: kind.__name__)
def test_conversion_keeps_parameters_and_buffers(kind):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(kind(4, eps=1e-3, momentum=0.2)), nn.GroupNorm(2, 4))
    model[1].eval()
    parameters, state = list(model.parameters()), model.state_dict()
    assert convert_sync_batch_norm(model) is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [value.data_ptr() for value in model.state_dict().values()] == [v.data_ptr() for v in state.values()]
    assert isinstance(model[1][0], SyncBatchNorm)
    assert (model[1][0].eps, model[1][0].momentum, model[1][0].training) == (1e-3, 0.2, False)
    assert model[0].training


def test_a_converted_model_stays():
    norm = convert_sync_batch_norm(nn.BatchNorm1d(2))
    assert convert_sync_batch_norm(norm) is norm


def test_one_process_is_batch_norm_to_the_bit():
    images = torch.randn(4, 3, 2, 2)
    norm = nn.BatchNorm2d(3)
    assert torch.equal(convert_sync_batch_norm(nn.BatchNorm2d(3))(images), norm(images))


def test_a_channel_axis_is_needed():
    with pytest.raises(ValueError, match=r'SyncBatchNorm: expected input of shape \(B, C, ...\) but got \(3,\)'):
        SyncBatchNorm(3)(torch.zeros(3))
