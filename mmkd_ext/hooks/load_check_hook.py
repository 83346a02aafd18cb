"""Refuses a checkpoint that does not fit the model."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from mmkd_ext.registry import HOOKS

__all__ = ['LoadCheckHook']


@HOOKS.register_module()
class LoadCheckHook(Hook):
    """Stops a run whose ``load_from``, resumed or tested checkpoint is of another architecture.

    mmengine only warns then and goes on with the random weights of whatever did not match.

    Args:
        new: Parts of the model, first words of its parameters' names, that a checkpoint may lack when training starts
            from it: the heads that a second stage adds. Evaluation needs them all.
    """

    # Before any hook that takes state from the checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, new: Sequence[str] = ()) -> None:
        self.new = tuple(new)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes before anything is copied into the model.

        Args:
            runner: The runner.
            checkpoint: What the file held.

        Raises:
            RuntimeError: An entry of the model is missing or has another shape.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own = model.state_dict()
        weights = checkpoint.get('state_dict', checkpoint)
        found = {name.removeprefix('module.'): value for name, value in weights.items() if hasattr(value, 'shape')}
        is_training = isinstance(runner._train_loop, BaseLoop)
        may_lack = self.new if is_training else ()
        missing = [name for name in own if name not in found and name.partition('.')[0] not in may_lack]
        other = [
            f'{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}'
            for name, value in own.items()
            if name in found and found[name].shape != value.shape
        ]
        if missing or other:
            raise RuntimeError(
                f'LoadCheckHook: expected the weights of this {type(model).__name__} but the checkpoint lacks '
                f'{len(missing)} of its {len(own)} entries {missing[:3]} and has {len(other)} of other shapes '
                f'{other[:3]}; give the checkpoint of the same architecture and classes'
            )
