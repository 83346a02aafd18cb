"""Says when a schedule never lets a training run at its learning rate."""

import copy
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmkd_ext.registry import HOOKS

__all__ = ['RateCheckHook', 'highest_rates']

_REACHED = 0.99


@HOOKS.register_module()
class RateCheckHook(Hook):
    """Warns before the first iteration of a training whose rate stays below that of its optimizer to the end.

    Such a training ends without an error and with a model that has hardly learnt. It comes from a warm-up that is
    longer than the training, or of one step: mmengine's ``LinearLR(begin=0, end=1)`` leaves the rate at its start
    factor for ever. The schedulers are run on a copy, until each rate is reached, so a schedule that is right costs as
    many steps as its warm-up has, and no step of the training.

    Schedulers that look at a metric are taken to leave the rate alone.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Compare the highest rate to come with the optimizer's.

        Args:
            runner: The runner; one that resumes was checked when it began.
        """
        if runner.iter > 0:
            return
        low = [(highest, nominal) for highest, nominal in highest_rates(runner) if highest < _REACHED * nominal]
        if low:
            highest, nominal = min(low, key=lambda pair: pair[0] / pair[1])
            runner.logger.warning(
                f'RateCheckHook: expected a learning rate of {nominal:.3g} at some time but the schedule never goes '
                f'beyond {highest:.3g}, {100 * highest / nominal:.3g} % of it; make the warm-up shorter than the '
                'training and two steps or longer, or leave it out'
            )


def highest_rates(runner: Runner) -> list[tuple[float, float]]:
    """Find how high the learning rates of a training will be.

    Args:
        runner: Its schedulers are built, as in ``Hook.before_train``; they and the optimizers stay as they are.

    Returns:
        (highest, nominal) of each group of parameters whose nominal rate is not 0. A highest rate is exact where it is
        below the nominal one; where this is reached the search ends.
    """
    schedulers = runner.param_schedulers or []
    of_optimizers = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    return [pair for group in of_optimizers for pair in _highest_of_optimizer(runner, list(group))]


class _Groups:
    """What a scheduler needs of an optimizer."""

    def __init__(self, optimizer: Any) -> None:
        self.param_groups = [
            {name: value for name, value in group.items() if name != 'params'} for group in optimizer.param_groups
        ]
        self.step = lambda: None
        self.step._with_counter = True  # type: ignore[attr-defined]
        self._global_step = 1


def _highest_of_optimizer(runner: Runner, schedulers: list[Any]) -> list[tuple[float, float]]:
    schedulers = [
        scheduler
        for scheduler in schedulers
        if scheduler.param_name == 'lr' and not isinstance(scheduler, ReduceOnPlateauParamScheduler)
    ]
    if not schedulers:
        return []
    optimizer = schedulers[0].optimizer
    groups = _Groups(optimizer)
    copies = [copy.deepcopy(scheduler, {id(optimizer): groups}) for scheduler in schedulers]
    nominal = [group['initial_lr'] for group in groups.param_groups]
    highest = [group['lr'] for group in groups.param_groups]
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    num_steps = (loop.max_epochs if by_epoch else 1) - 1, loop.max_iters - 1
    epoch_length = len(loop.dataloader) if by_epoch else loop.max_iters
    iterations = [scheduler for scheduler in copies if not scheduler.by_epoch]
    epochs = [scheduler for scheduler in copies if scheduler.by_epoch]
    # Without schedulers by iteration the rate only changes between epochs.
    for step in range(1, (num_steps[1] if iterations else num_steps[0]) + 1):
        if all(high >= _REACHED * rate for high, rate in zip(highest, nominal, strict=True)):
            break
        for scheduler in iterations:
            type(scheduler).step(scheduler)
        if not iterations or step % epoch_length == 0:
            for scheduler in epochs:
                type(scheduler).step(scheduler)
        highest = [max(high, group['lr']) for high, group in zip(highest, groups.param_groups, strict=True)]
    return [(high, rate) for high, rate in zip(highest, nominal, strict=True) if rate > 0]
