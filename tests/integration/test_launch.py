"""tools/*.sh: one node, and two, which are two launchers on this machine; slurm by a stand-in for srun."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'

REPORT = """
import os, sys, torch.distributed as dist
dist.init_process_group('gloo')
ranks = [None] * dist.get_world_size()
dist.all_gather_object(ranks, dist.get_rank())
os.write(1, f'RANKS {ranks} {sys.argv[1:]}\\n'.encode())  # one write: processes share the pipe
dist.destroy_process_group()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'report.py'
    path.write_text(REPORT)
    return path


def _free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def _start(tool, *arguments, **variables):
    inherited = {name: value for name, value in os.environ.items() if name not in ('PORT', 'NNODES', 'MASTER_ADDR')}
    environment = {**inherited, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **variables}
    command = ['bash', str(TOOLS / tool), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _output(run):
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors[-3000:]
    return output


def test_one_node_needs_no_port(script):
    output = _output(_start('launch.sh', script, 2, '--option', 'two words'))
    assert output.count("RANKS [0, 1] ['--option', 'two words']") == 2


@pytest.mark.parametrize('kind', ['static', 'c10d'])
def test_two_nodes(script, kind):
    port = str(_free_port())
    if kind == 'static':
        nodes = [{'NODE_RANK': str(rank), 'MASTER_ADDR': '127.0.0.1', 'PORT': port} for rank in range(2)]
    else:
        nodes = [{'RDZV_ENDPOINT': f'127.0.0.1:{port}', 'RDZV_ID': 'test'}] * 2
    runs = [_start('launch.sh', script, 1, NNODES='2', **node) for node in nodes]
    for run in runs:
        assert 'RANKS [0, 1] []' in _output(run)


def test_several_nodes_have_to_find_each_other(script):
    run = _start('launch.sh', script, 1, NNODES='2', NODE_RANK='0')
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert 'expected NODE_RANK and MASTER_ADDR, or RDZV_ENDPOINT, for NNODES=2' in errors


@pytest.fixture
def commands(tmp_path):
    """Stand-ins for python and srun that print their arguments, one per line."""
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    return {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': 'python'}


def test_train_and_test_are_started_with_the_launcher(commands):
    train = _output(_start('dist_train.sh', 'a b.py', 4, '--resume', **commands)).splitlines()
    assert train[-5:] == [str(TOOLS / 'train.py'), 'a b.py', '--resume', '--launcher', 'pytorch']
    assert {'torch.distributed.run', '--nproc-per-node=4', '--nnodes=1', '--standalone'} <= set(train)
    test = _output(_start('dist_test.sh', 'a.py', 'b.pth', 2, PORT='1234', **commands)).splitlines()
    assert test[-5:] == [str(TOOLS / 'test.py'), 'a.py', 'b.pth', '--launcher', 'pytorch']
    assert {'--master-port=1234', '--master-addr=127.0.0.1', '--node-rank=0'} <= set(test)


def test_elastic_nodes_and_restarts(commands):
    settings = {'NNODES': '1:4', 'RDZV_ENDPOINT': 'head:29400', 'TORCHRUN_ARGS': '--max-restarts=3 --tee=3'}
    arguments = _output(_start('dist_train.sh', 'a.py', 8, **settings, **commands)).splitlines()
    expected = {'--nnodes=1:4', '--rdzv-backend=c10d', '--rdzv-endpoint=head:29400', '--max-restarts=3', '--tee=3'}
    assert expected <= set(arguments)


def test_slurm(commands):
    settings = {'GPUS': '16', 'GPUS_PER_NODE': '4', 'SRUN_ARGS': '--time=4:00:00 --signal=USR1@120'}
    arguments = _output(_start('slurm_train.sh', 'gpu', 'crkd', 'a b.py', '--resume', **settings, **commands))
    expected = ['--partition=gpu', '--job-name=crkd', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4']
    expected += ['--cpus-per-task=5', '--kill-on-bad-exit=1', '--time=4:00:00', '--signal=USR1@120', 'python', '-u']
    assert arguments.splitlines() == [*expected, str(TOOLS / 'train.py'), 'a b.py', '--launcher', 'slurm', '--resume']


def test_slurm_asks_for_no_more_gpus_than_the_job_has(commands):
    arguments = _output(_start('slurm_train.sh', 'gpu', 'crkd', 'a.py', GPUS='2', **commands)).splitlines()
    assert {'--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2'} <= set(arguments)
