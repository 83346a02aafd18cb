import copy
import time

import pytest
import torch

from mmkd_ext.distill import Stopwatch


def test_adds_up():
    watch = Stopwatch(torch.device('cpu'))
    assert watch.seconds() == 0
    for _ in range(2):
        with watch:
            time.sleep(0.01)
    watch.start()
    time.sleep(0.01)
    watch.stop()
    assert 0.03 <= watch.seconds() < 0.3


def test_copies_of_a_model_share_it():
    watch = Stopwatch(torch.device('cpu'))
    assert copy.deepcopy(watch) is watch


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_times_the_gpu():
    device = torch.device('cuda', 0)
    watch = Stopwatch(device)
    x = torch.randn(2000, 2000, device=device)
    with watch:
        x @ x
    torch.cuda.synchronize()
    assert watch.seconds() > 0
