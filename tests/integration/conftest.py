"""What the tests with host projects share."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

_PLAIN_HOST = """
import json, sys
sys.modules['mmkd_ext'] = None  # import mmkd_ext fails as if it were not installed
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

cfg = Config.fromfile(sys.argv[1])
init_default_scope(cfg.default_scope)
model = MODELS.build(cfg.model)
load_checkpoint(model, sys.argv[2], map_location='cpu', strict=True)
print('KEYS' + json.dumps(list(model.state_dict())))
"""


@pytest.fixture(scope='module', autouse=True)
def _safe_loader() -> None:
    """The original mmengine cannot resume under torch >= 2.6 without it; the tools register it, too."""
    from mmengine.runner import CheckpointLoader

    from mmkd_ext.checkpoint import register_safe_loader

    schemes = dict(CheckpointLoader._schemes)
    register_safe_loader()
    yield
    CheckpointLoader._schemes = schemes


@pytest.fixture
def train() -> Callable[[Config, Path], tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]]:
    """Train a config with the stock Runner; the losses logged per iteration, and the weights saved at the end."""

    def train(cfg: Config, work_dir: Path) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
        from mmkd_ext.checkpoint import load_checkpoint_safely

        cfg.work_dir = str(work_dir)
        cfg.randomness = dict(seed=0)
        runner = Runner.from_cfg(cfg)
        runner.train()
        scalars = runner.message_hub.log_scalars.items()
        losses = {name.removeprefix('train/'): log.data[0] for name, log in scalars if 'loss' in name}
        return losses, load_checkpoint_safely((work_dir / 'last_checkpoint').read_text())['state_dict']

    return train


@pytest.fixture
def run_here(monkeypatch) -> Callable[..., None]:
    """Run a tool in a folder, in this process, which has imported everything already; it raises what the tool does."""

    def run(folder: Path, tool: str, *arguments: object) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(str(Path(__file__).parents[2] / 'tools' / tool), run_name='__main__')

    return run


@pytest.fixture
def load_in_plain_host() -> Callable[[Path, Path], list[str]]:
    """Load a checkpoint strictly into the model of a host's config where mmkd_ext cannot be imported; its keys."""

    def load(config: Path, checkpoint: Path) -> list[str]:
        # The original mmengine cannot read its own checkpoints otherwise; this file is ours.
        env = {**os.environ, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD': '1'}
        command = [sys.executable, '-c', _PLAIN_HOST, str(config), str(checkpoint)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.rpartition('KEYS')[2])

    return load


@pytest.fixture
def teachers(monkeypatch) -> list[nn.Module]:
    """Every model that becomes a frozen teacher during the test."""
    from mmkd_ext.distill import FrozenTeacher

    models, freeze = [], FrozenTeacher.__init__

    def spy(self, model, *args, **kwargs):
        models.append(model)
        freeze(self, model, *args, **kwargs)

    monkeypatch.setattr(FrozenTeacher, '__init__', spy)
    return models


@pytest.fixture
def one_thread(monkeypatch) -> None:
    """Tiny networks run faster on one core, in this process and in those that it starts."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
