import io
import random

import numpy as np
import torch

from mmkd_ext.engine.runner import get_random_state, seed_cpu, set_random_state


def draw():
    return random.gauss(0, 1), np.random.normal(), torch.randn(2).tolist()  # noqa: NPY002


def test_the_state_of_all_three_survives_a_weights_only_file():
    draw()
    file = io.BytesIO()
    torch.save(get_random_state(cuda=True), file)
    expected = [draw() for _ in range(3)]
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_seeding_decides_on_all_three():
    seed_cpu(2**32 - 1)
    first = draw()
    assert draw() != first
    seed_cpu(2**32 - 1)
    assert draw() == first
    seed_cpu(0)
    assert draw() != first


def test_seeding_a_sample_leaves_other_devices_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', lambda seed: 1 / 0)
    seed_cpu(3)
