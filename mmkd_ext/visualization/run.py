"""Facts about a run of mmengine's Runner that a report states."""

from pathlib import Path
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, Runner

__all__ = ['progress', 'run_settings']


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
