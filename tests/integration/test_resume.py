"""Runs that are killed or asked to end, then resumed, against a run that nothing disturbs: Cr-KD on digits.

    MMKD_KILLS=20 python -m pytest tests/integration/test_resume.py -s

kills 20 times (4 by default) and prints when.
"""

import importlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch

from mmkd_ext.checkpoint import load_checkpoint_safely

ROOT = Path(__file__).parents[2]

NUM_KILLS = int(os.environ.get('MMKD_KILLS', '4'))
PLACES = ('anywhere', 'checkpoint', 'validation', 'anywhere')

STAGE = """
_base_ = '{root}/configs/supervised/supervised_convnet_40e_digits.py'
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1))
"""
RECIPE = """
_base_ = '{root}/configs/crkd/crkd_convnet_80e_digits.py'
stage_one = dict(config='{folder}/stage.py', checkpoint='{folder}/stage/epoch_2.pth')
load_from = stage_one['checkpoint']
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], teacher=stage_one)]
train_cfg = dict(max_epochs=3, val_interval=1)
train_dataloader = dict(num_workers={workers})
default_hooks = dict(
    preemption=dict(interval=2),
    checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=1, save_best='test/v2_all', rule='greater'))
"""


class Run:
    """``mmkd train`` in a forked process, which need not import everything anew."""

    def __init__(self, folder, config, *options, **environment):
        context = multiprocessing.get_context('fork')
        self.place = context.Value('i', 0)
        arguments = [str(config), '--work-dir', str(folder), *options]
        self.process = context.Process(
            target=_train, args=(arguments, environment, self.place, folder.with_suffix('.log'))
        )
        self.process.start()

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def wait_for(self, place):
        """Wait until the run is in a validation or writes a checkpoint, or is over."""
        number = PLACES.index(place)
        while self.process.is_alive() and self.place.value != number:
            time.sleep(1e-4)

    def kill(self, number=signal.SIGKILL, group=False):
        if self.process.is_alive():
            (os.killpg if group else os.kill)(self.process.pid, number)
        return self.wait()


def _train(arguments, environment, place, log):
    os.setpgid(0, 0)
    os.environ.update(environment, CUDA_VISIBLE_DEVICES='')
    sys.stdout = sys.stderr = log.open('a', buffering=1)
    torch.set_num_threads(1)
    from mmengine.runner import ValLoop

    from mmkd_ext.checkpoint import AtomicLocalBackend
    from mmkd_ext.cli.train import train
    from mmkd_ext.visualization import markdown_report as report

    report.report_figures = lambda *args, **kwargs: iter(())  # drawing would take most of the time
    report.history_figure = lambda *args: None
    _announce(ValLoop, 'run', place, PLACES.index('validation'))
    _announce(AtomicLocalBackend, 'put', place, PLACES.index('checkpoint'))
    train(arguments)


def _announce(owner, name, place, number):
    function = getattr(owner, name)

    def announced(*args, **kwargs):
        before, place.value = place.value, number
        try:
            return function(*args, **kwargs)
        finally:
            place.value = before

    setattr(owner, name, announced)


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
    """The recipe's files, by number of workers, and a trained first stage."""
    for module in ('mmpretrain.models', 'sklearn.datasets', 'mmkd_ext.hooks', 'mmkd_ext.losses', 'mmkd_ext.cli.train'):
        importlib.import_module(module)  # forked processes find it loaded
    folder = tmp_path_factory.mktemp('configs')
    (folder / 'stage.py').write_text(STAGE.format(root=ROOT))
    assert Run(folder / 'stage', folder / 'stage.py').wait() == 0
    paths = {}
    for workers in (0, 2):
        paths[workers] = folder / f'recipe{workers}.py'
        paths[workers].write_text(RECIPE.format(root=ROOT, folder=folder, workers=workers))
    return paths


@pytest.fixture(scope='module')
def undisturbed(configs):
    """The work folder of a run from beginning to end, and the seconds that it took."""
    folder = configs[0].parent / 'undisturbed'
    begin = time.monotonic()
    assert Run(folder, configs[0]).wait() == 0, folder.with_suffix('.log').read_text()[-3000:]
    return folder, time.monotonic() - begin


def _final(folder):
    return load_checkpoint_safely((folder / 'last_checkpoint').read_text())


def _assert_same_result(folder, other):
    for name in ('metrics.json', 'curves.json', 'assignments.csv'):
        contents = [(path / 'report' / name).read_text().replace(str(path), '') for path in (folder, other)]
        if name == 'metrics.json':
            contents = [json.loads(content)['metrics'] for content in contents]
        assert contents[0] == contents[1], name
    ours, theirs = _final(folder), _final(other)
    assert ours['meta']['iter'] == theirs['meta']['iter']
    for name, value in ours['state_dict'].items():
        assert torch.equal(value, theirs['state_dict'][name]), name
    scores = [checkpoint['message_hub']['runtime_info']['best_score'] for checkpoint in (ours, theirs)]
    assert scores[0] == scores[1]
    files = [sorted(path.name for path in place.glob('*.pth')) for place in (folder, other)]
    assert files[0] == files[1]


def _kill_somewhere(run, place, duration, generator):
    begin = time.monotonic()
    if place == 'anywhere':
        run.process.join(generator.uniform(0, duration))
    else:
        time.sleep(generator.uniform(0, duration / 2))
        run.wait_for(place)
        time.sleep(generator.uniform(0, 0.05 if place == 'validation' else 0.003))
    found = PLACES[run.place.value]
    code = run.kill()
    if code == -signal.SIGKILL:
        print(f'killed after {time.monotonic() - begin:.2f} s, wanted {place}, was in {found}')
    return code


def test_killed_at_any_moment(configs, undisturbed, tmp_path):
    """Also while it validates and while it writes a checkpoint; whatever is left can be resumed from."""
    whole, duration = undisturbed
    generator = random.Random(2026)
    num_kills = trial = 0
    while num_kills < NUM_KILLS:
        folder = tmp_path / f'trial{trial}'
        code = None
        while code != 0:
            run = Run(folder, configs[0], '--resume')
            wants_kill = num_kills < NUM_KILLS
            place = PLACES[num_kills % len(PLACES)]
            code = _kill_somewhere(run, place, duration, generator) if wants_kill else run.wait()
            assert code in (0, -signal.SIGKILL), folder.with_suffix('.log').read_text()[-3000:]
            num_kills += code != 0
            for checkpoint in folder.glob('*.pth'):
                load_checkpoint_safely(checkpoint)
        _assert_same_result(whole, folder)
        assert not list(folder.glob('*.partial'))
        trial += 1
    print(f'{num_kills} kills in {trial} runs; all ended with the metrics and weights of the undisturbed run')


@pytest.mark.parametrize(
    ('number', 'workers', 'place'),
    [(signal.SIGUSR1, 0, 'validation'), (signal.SIGTERM, 2, 'checkpoint')],
)
def test_asked_to_end(configs, undisturbed, tmp_path, number, workers, place):
    """A signal to the whole process group, as a cluster sends it: workers get it too."""
    folder = tmp_path / 'run'
    run = Run(folder, configs[workers])
    while not (folder / 'last_checkpoint').is_file():
        time.sleep(0.01)
    run.wait_for(place)
    assert run.kill(number, group=True) == 128 + number, folder.with_suffix('.log').read_text()[-3000:]
    saved = folder / 'interrupted.pth'
    assert Path((folder / 'last_checkpoint').read_text()) == saved
    log = folder.with_suffix('.log').read_text()
    iteration = load_checkpoint_safely(saved)['meta']['iter']
    assert f'{number.name} after iteration {iteration}; saved {saved}. Go on with the same command and --resume' in log
    assert Run(folder, configs[workers], '--resume').wait() == 0
    saved.unlink()
    _assert_same_result(undisturbed[0], folder)


def _two_processes(folder, config, *options):
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        environment = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(listener.getsockname()[1]), 'WORLD_SIZE': '2'}
    options = [*options, '--launcher', 'pytorch']
    return [Run(folder, config, *options, **environment, RANK=rank, LOCAL_RANK=rank) for rank in ('0', '1')]


def test_one_of_two_processes_is_asked_to_end(configs, tmp_path):
    """Both end after the same iteration and go on with their own batch statistics and random states."""
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert [run.wait() for run in _two_processes(whole, configs[0])] == [0, 0]
    runs = _two_processes(parts, configs[0])
    while not (parts / 'last_checkpoint').is_file():
        time.sleep(0.01)
    runs[1].wait_for('anywhere')
    os.kill(runs[1].process.pid, signal.SIGTERM)
    assert [run.wait() for run in runs] == [128 + signal.SIGTERM] * 2, parts.with_suffix('.log').read_text()[-3000:]
    assert 0 < load_checkpoint_safely(parts / 'interrupted.pth')['meta']['iter'] < _final(whole)['meta']['iter']
    assert [run.wait() for run in _two_processes(parts, configs[0], '--resume')] == [0, 0]
    (parts / 'interrupted.pth').unlink()
    _assert_same_result(whole, parts)
