"""The schedule of SimGCD's self-distillation."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_ext.engine.runner import student_of
from mmkd_ext.ops.checks import check_positive
from mmkd_ext.registry import HOOKS

__all__ = ['TeacherTemperatureHook']


@HOOKS.register_module()
class TeacherTemperatureHook(Hook):
    """Lowers ``teacher_temperature`` of a :class:`mmkd_ext.models.SimGCD` linearly during the first epochs.

    Targets that are sharp from the start would fix the first guesses. A function of the epoch alone, so a resumed run
    continues it. From SimGCD, arXiv 2211.11727, Sec. 5.1: 0.07 to 0.04 in 30 of 200 epochs.

    Args:
        start: Temperature of the first epoch.
        end: Temperature from epoch ``num_epochs`` on, counted from 0.
        num_epochs: Length of the way, at least 1.

    Raises:
        TypeError: A number is none.
        ValueError: A number is not positive.
    """

    def __init__(self, start: float = 0.07, end: float = 0.04, num_epochs: int = 30) -> None:
        check_positive('TeacherTemperatureHook', start=start, end=end, num_epochs=num_epochs)
        self.start = start
        self.end = end
        self.num_epochs = num_epochs

    def before_train(self, runner: Runner) -> None:
        """Refuse a model without the temperature.

        Raises:
            TypeError: The model has none.
        """
        model: Any = student_of(runner)
        if not hasattr(model, 'teacher_temperature'):
            raise TypeError(
                f'TeacherTemperatureHook: expected a model with teacher_temperature but got {type(model).__name__}; '
                'use it with mmkd_ext.SimGCD'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the temperature of the epoch."""
        progress = min(runner.epoch / self.num_epochs, 1)
        student_of(runner).teacher_temperature = self.start + progress * (self.end - self.start)
