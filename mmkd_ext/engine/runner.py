"""What hooks ask mmengine's Runner for: its model, its settings, how far it is; and the state in which it began."""

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel, BaseModel, is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmkd_ext.registry import MODELS


class InitialState:
    """The states in which optimizers and schedulers of a runner were built.

    Args:
        runner: Everything is built, nothing trained, loaded or resumed yet, as in ``Hook.before_run``.
    """

    def __init__(self, runner: Runner) -> None:
        self._states = copy.deepcopy([part.state_dict() for part in _schedule(runner)])

    def restore(self, runner: Runner) -> None:
        """Give optimizers and schedulers these states, drop gradients, and let averages of weights start again."""
        for part, state in zip(_schedule(runner), self._states, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        runner.optim_wrapper.zero_grad()
        for average in averages_of(runner):
            average.steps.zero_()  # its next update copies the weights


def new_weights(runner: Runner, seed: int) -> dict[str, torch.Tensor]:
    """Return the state dict of a model as the runner's config makes it, on the CPU.

    Args:
        runner: Its config has the model.
        seed: Decides on the weights; the run's own random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: BaseModel = MODELS.build(model_config(runner))
        model.init_weights()
    return model.state_dict()


def model_config(runner: Runner) -> dict[str, Any]:
    """Return what builds another model like the runner's.

    Raises:
        RuntimeError: The runner does not know.
    """
    if 'model' not in runner.cfg:
        raise RuntimeError(
            'model_config: expected a runner that knows the config of its model but got one built without; '
            'use Runner.from_cfg(cfg)'
        )
    model = copy.deepcopy(runner.cfg.model)
    if 'data_preprocessor' in runner.cfg:
        model.setdefault('data_preprocessor', copy.deepcopy(runner.cfg.data_preprocessor))
    return model


def student_of(runner: Runner) -> BaseModel:
    """Return the model without a wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def averages_of(runner: Runner) -> list[BaseAveragedModel]:
    """Return the averages of the model that EMA hooks keep."""
    return [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]


def _schedule(runner: Runner) -> list[Any]:
    """Return the optimizer wrapper and all schedulers."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):  # of several optimizers
        schedulers = [scheduler for group in schedulers.values() for scheduler in group]
    return [runner.optim_wrapper, *schedulers]


# --------------------------------------------------------------------------------------------------
# Facts about a run of mmengine's Runner that a report states.


def progress(runner: Runner) -> tuple[float, str]:
    """Return how far training is, and in which unit: epochs, or iterations in a loop without epochs.

    Args:
        runner: A runner that trains.

    Returns:
        tuple: Epochs done, possibly a fraction, and 'epoch'; or iterations done and 'iteration'.
    """
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        return runner.iter / len(loop.dataloader), 'epoch'
    return float(runner.iter), 'iteration'


def run_settings(runner: Runner, *, is_training: bool) -> dict[str, Any]:
    """Return what the numbers of a run belong to.

    Args:
        runner: The runner.
        is_training: Whether it trains; otherwise it tests a checkpoint.

    Returns:
        dict: Name -> string, int or ``None``.
    """
    filename = runner.cfg.filename
    return {
        'config': Path(filename).stem if filename else runner.experiment_name,
        'config file': filename and str(filename),
        'checkpoint': runner.message_hub.get_info('last_ckpt') if is_training else runner._load_from,
        'seed': runner.seed,
        'iteration': runner.iter if is_training else 0,
        'work folder': runner.work_dir,
    }
