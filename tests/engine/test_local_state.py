import random

import pytest
import torch
from torch import nn
from torch.multiprocessing import start_processes

from mmkd_ext.engine.runner import gather_local_states, get_random_state, restore_local_state


def model():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.register_buffer('queue', torch.arange(4, dtype=torch.bfloat16))
    return net


def test_one_process_keeps_random_state_and_accumulated_gradients():
    net = model()
    net[0].weight.grad = torch.full((2, 2), 3.0)
    (state,) = gather_local_states(net, get_random_state())
    expected = random.random(), torch.rand(())
    other = model()
    restore_local_state(state, other)
    assert (random.random(), torch.rand(())) == expected
    assert other[0].weight.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert other[0].bias.grad is None
    assert state['buffers'] == {}


def _in_process(rank, folder):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    net = model()
    net[1].running_mean.fill_(rank)
    random.seed(rank)
    states = gather_local_states(net, get_random_state())
    number = random.random()
    if rank == 0:
        assert [list(state['buffers']) for state in states] == [['1.running_mean']] * 2
        torch.save(states, f'{folder}/states')
    else:
        assert states is None
    torch.distributed.barrier()
    states = torch.load(f'{folder}/states', weights_only=True)
    net[1].running_mean.fill_(9)
    restore_local_state(states[rank], net)
    assert random.random() == number
    assert net[1].running_mean.tolist() == [rank, rank]
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings('ignore')
def test_two_processes_get_back_their_own(tmp_path):
    start_processes(_in_process, args=(str(tmp_path),), nprocs=2, start_method='fork')
