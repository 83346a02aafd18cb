"""A discovery that is killed and resumed against one that nothing disturbs: blots of four kinds, two epochs.

    MMKD_KILLS=20 python -m pytest tests/integration/test_resume_discover.py -s

kills 20 times (4 by default) and prints where.
"""

import importlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

NUM_KILLS = int(os.environ.get('MMKD_KILLS', '4'))
PLACES = ('training', 'scan', 'estimate', 'report')
RESULTS = ('num_classes.json', 'num_novel.json', 'assignments.csv', 'report.html')


class Run:
    """``mmkd discover --resume`` in a forked process, which need not import everything anew."""

    def __init__(self, photos, out):
        context = multiprocessing.get_context('fork')
        self.place = context.Value('i', 0)
        self.log = out.with_suffix('.log')
        self.process = context.Process(target=_discover, args=(photos, out, self.place, self.log))
        self.process.start()

    def watch(self):
        """Wait for the end; return the seconds that the run was in each place."""
        seconds = Counter()
        while self.process.is_alive():
            begin = time.monotonic()
            time.sleep(1e-3)
            seconds[PLACES[self.place.value]] += time.monotonic() - begin
        assert self.process.exitcode == 0, self.log.read_text()[-3000:]
        return seconds

    def kill_in(self, place, delay):
        """Kill it some time after it came to a place; return where it was, None if it was over before."""
        while self.process.is_alive() and self.place.value != PLACES.index(place):
            time.sleep(1e-4)
        self.process.join(delay)
        found = PLACES[self.place.value]
        self.process.kill()
        self.process.join()
        assert self.process.exitcode in (0, -signal.SIGKILL), self.log.read_text()[-3000:]
        return found if self.process.exitcode else None


def _discover(photos, out, place, log):
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    sys.stdout = sys.stderr = log.open('a', buffering=1)
    torch.set_num_threads(1)
    from mmkd_ext.cli.discover import discover
    from mmkd_ext.discover import steps

    _announce(steps.Steps, '_scan', place)
    _announce(steps, 'estimate_num_classes', place)
    _announce(steps.Steps, '_report', place)
    discover([str(photos / 'known'), str(photos / 'all'), '--out', str(out), '--epochs', '2', '--resume'])


def _announce(owner, name, place):
    function = getattr(owner, name)
    number = next(number for number, word in enumerate(PLACES) if word in name)

    def announced(*args, **kwargs):
        place.value = number
        try:
            return function(*args, **kwargs)
        finally:
            place.value = 0

    setattr(owner, name, announced)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    ours = ('mmkd_ext.hooks', 'mmkd_ext.losses', 'mmkd_ext.cli.discover')
    for module in ('mmpretrain.models', 'sklearn.manifold', *ours):
        importlib.import_module(module)  # forked processes find it loaded
    root, generator = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for index in range(40):
        kind = index % 4
        folder = root / 'known' / 'ab'[kind] if kind < 2 else root / 'all'
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (8, 8)) + 40 * kind
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{index}.png')
    return root


def test_killed_at_any_moment(photos, tmp_path):
    """In the scan, the estimate, a training and the report, in turn; a folder is killed in until it is finished."""
    whole = tmp_path / 'undisturbed'
    seconds = Run(photos, whole).watch()
    generator = random.Random(2026)
    places = ['scan', 'estimate', 'training', 'report']  # as they come, so that none is over when it is wanted
    num_kills = trial = 0
    while num_kills < NUM_KILLS:
        folder, is_over = tmp_path / f'trial{trial}', False
        while not is_over and num_kills < NUM_KILLS:
            place = places[num_kills % len(places)]
            found = Run(photos, folder).kill_in(place, generator.uniform(0, 0.8 * seconds[place]))
            is_over = found is None
            num_kills += not is_over
            print(f'trial {trial}: wanted {place}, was in {found or "the end"}')
        Run(photos, folder).watch()
        for name in RESULTS:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
        assert not list(folder.glob('*.partial'))
        trial += 1
    print(f'{num_kills} kills in {trial} runs; all ended with the files of the undisturbed run')
