import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.hooks import PreemptionHook
from mmkd_ext.hooks.resume_hook import _spare_workers


class Signal(Hook):
    def __init__(self, number, iteration):
        self.number, self.iteration = number, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def build(case, folder, hooks=(), resume=False):
    return case.build(
        work_dir=folder,
        default_hooks={
            'exact_resume': {'type': 'mmkd_ext.ExactResumeHook'},
            'preemption': {'type': 'mmkd_ext.PreemptionHook'},
        },
        custom_hooks=list(hooks),
        resume=resume,
    )


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize('iteration', [0, 3, 5])
def test_completes_the_iteration_saves_and_exits(case, tmp_path, number, iteration):
    before = signal.getsignal(number)
    runner = build(case, tmp_path, [Signal(number, iteration)])
    with pytest.raises(SystemExit) as end:
        runner.train()
    assert end.value.code == 128 + number
    assert signal.getsignal(number) == before
    checkpoint = load_checkpoint_safely((tmp_path / 'last_checkpoint').read_text())
    assert checkpoint['meta']['iter'] == iteration + 1
    assert checkpoint['meta']['epoch'] == iteration // 4
    assert torch.equal(checkpoint['state_dict']['linear1.weight'], runner.model.linear1.weight)
    log = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert f'{number.name} after iteration {iteration + 1}; saved {tmp_path / "interrupted.pth"}' in log
    resumed = build(case, tmp_path, resume=True)
    resumed.train()
    assert resumed.iter == 8


def test_listens_only_while_it_trains(case, tmp_path):
    before = [signal.getsignal(number) for number in PreemptionHook.SIGNALS]
    build(case, tmp_path).train()
    assert [signal.getsignal(number) for number in PreemptionHook.SIGNALS] == before
    assert not (tmp_path / 'interrupted.pth').exists()


def test_a_second_signal_ends_the_process_at_once():
    script = (
        'import os, signal, time\n'
        'from types import SimpleNamespace\n'
        'from mmkd_ext.hooks import PreemptionHook\n'
        'loop = SimpleNamespace(dataloader=SimpleNamespace(worker_init_fn=None))\n'
        'PreemptionHook().before_train(SimpleNamespace(train_loop=loop, val_loop=None))\n'
        'os.kill(os.getpid(), signal.SIGTERM)\n'
        'print("alive", flush=True)\n'
        'os.kill(os.getpid(), signal.SIGTERM)\n'
        'time.sleep(60)\n'
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', script], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == 'alive', done.stderr
    assert done.returncode == -signal.SIGTERM


def test_another_thread_trains_without_listening():
    hook = PreemptionHook()
    errors = []

    def train():
        try:
            hook.before_train(SimpleNamespace(train_loop=None, val_loop=None))
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not errors


class Slow(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(0.2)
        return torch.tensor([index, os.getpid()])


def signal_from_outside(process):
    subprocess.run(['kill', '-TERM', str(process)], check=True)


def test_a_worker_outlives_one_signal_and_not_two():
    loader = DataLoader(Slow(), batch_size=2, num_workers=1)
    _spare_workers(loader)
    batches = iter(loader)
    worker = int(next(batches)[0, 1])
    signal_from_outside(worker)
    assert next(batches)[:, 0].tolist() == [2, 3]
    loader = DataLoader(Slow(), batch_size=2, num_workers=1)
    _spare_workers(loader)
    batches = iter(loader)
    worker = int(next(batches)[0, 1])
    signal_from_outside(worker)
    time.sleep(0.05)
    signal_from_outside(worker)
    with pytest.raises(RuntimeError, match='worker'):
        next(batches)


def test_workers_end_with_the_main_process():
    script = (
        'from torch.utils.data import DataLoader\n'
        'from mmkd_ext.hooks.resume_hook import _spare_workers\n'
        'loader = DataLoader(range(4), num_workers=2, persistent_workers=True)\n'
        '_spare_workers(loader)\n'
        'batches = iter(loader)\n'
        'batches.myself = batches\n'  # nothing but the end of the process shuts the workers down
        'next(batches)\n'
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', script], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_interval_is_checked():
    with pytest.raises(ValueError, match=r'PreemptionHook: .*interval .*got 0'):
        PreemptionHook(interval=0)
