"""Fixtures shared by all tests: isolation of mmengine's singletons, seeds, golden vectors."""

import os
import random
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: the tensors of tests are too small for a second thread, which would only wait.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture(autouse=True)
def _isolated():
    """Same seeds at the start of every test; no mmengine singleton outlives one."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    yield
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    for manager in (MMLogger, MessageHub, DefaultScope, Visualizer):
        manager._instance_dict.clear()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Vectors computed by the official implementations; ``tests/golden/README.md`` says which."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f'{name}.npz') as archive:
            return dict(archive)

    return load


@pytest.fixture
def case():
    """What builds the runners of a test: :class:`runners.RunnerCase`, on mmengine's own test case."""
    from runners import runner_case

    with runner_case() as case:
        yield case


@pytest.fixture
def host_scope() -> None:
    """Make mmpretrain the default scope, as in the shipped configs."""
    from mmengine.registry import init_default_scope

    init_default_scope('mmpretrain')
