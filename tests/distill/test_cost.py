import re
import time
from types import SimpleNamespace

import torch

from mmkd_ext.distill import TeacherCost


class Steps:
    """A distillation whose teacher takes a quarter of a step."""

    def __init__(self):
        self.distillation = SimpleNamespace(teachers={'big': None}, stopwatches={})
        self.cost = TeacherCost(self.distillation, torch.device('cpu'), warm_up=2, num_steps=3)

    def run(self):
        self.cost.before_step()
        for watch in self.distillation.stopwatches.values():
            with watch:
                time.sleep(0.01)
        time.sleep(0.03)
        return self.cost.after_step()


def test_told_once_after_the_steps_that_are_timed():
    steps = Steps()
    told = [steps.run() for _ in range(8)]
    assert [text is not None for text in told] == [False] * 4 + [True] + [False] * 3
    share, milliseconds = re.search(r'mean of 3 steps: big (\d+)% \(([\d.]+) ms\)', told[4]).groups()
    assert 10 <= int(share) <= 60
    assert float(milliseconds) >= 10


def test_only_some_steps_are_timed():
    steps = Steps()
    timed = []
    for _ in range(6):
        steps.cost.before_step()
        timed.append(bool(steps.distillation.stopwatches))
        steps.cost.after_step()
    assert timed == [False, False, True, True, True, False]


def test_waits_until_the_gpu_has_come_so_far():
    steps = Steps()
    for _ in range(4):
        steps.run()
    late = steps.cost._step.seconds
    steps.cost._step.seconds = lambda: None
    assert steps.run() is None
    steps.cost._step.seconds = late
    assert steps.run() is not None
