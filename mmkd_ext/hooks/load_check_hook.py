"""Refuses a checkpoint, or a pair of data sets, that does not fit the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmkd_ext.engine.runner import student_of
from mmkd_ext.models.build import part_of, surplus_entries
from mmkd_ext.registry import HOOKS

__all__ = ['LoadCheckHook']


@HOOKS.register_module()
class LoadCheckHook(Hook):
    """Stops a run that would go on with random weights, or with classes in another order.

    mmengine only warns about entries of a checkpoint that do not match, and does not compare classes at all.

    Args:
        new: Parts of the model, first words of its parameters' names, that a checkpoint may lack when training starts
            from it: the heads that a second stage adds. Resuming and evaluation need them all.
    """

    # Before any hook that takes state from the checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, new: Sequence[str] = ()) -> None:
        self.new = tuple(new)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names, shapes and classes before anything is copied into the model.

        Args:
            runner: The runner.
            checkpoint: What the file held.

        Raises:
            RuntimeError: An entry of the model is missing or has another shape, the checkpoint has more of a part
                than the model, or it was trained on other known classes.
        """
        starts_afresh = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        _check_weights(
            student_of(runner), checkpoint.get('state_dict', checkpoint), may_lack=self.new if starts_afresh else ()
        )
        loader = runner.train_dataloader if isinstance(runner._train_loop, BaseLoop) else _evaluation_loader(runner)
        if loader is not None:
            _check_classes(
                'the checkpoint', checkpoint.get('meta', {}).get('dataset_meta'), 'this run', _metainfo(loader)
            )

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of training and validation.

        Args:
            runner: The runner.

        Raises:
            RuntimeError: They differ.
        """
        if runner.val_loop is not None:
            _check_classes(
                'training', _metainfo(runner.train_dataloader), 'validation', _metainfo(runner.val_dataloader)
            )


def _check_weights(model: nn.Module, weights: Mapping[str, Any], may_lack: tuple[str, ...]) -> None:
    own = model.state_dict()
    found = {name.removeprefix('module.'): value for name, value in weights.items() if hasattr(value, 'shape')}
    problems = {
        'lacks': [name for name in own if name not in found and part_of(name) not in may_lack],
        'has too many': surplus_entries(own, found),
        'has of other shapes': [
            f'{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}'
            for name, value in own.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    complaints = [f'{what} {len(names)} entries {names[:3]}' for what, names in problems.items() if names]
    if complaints:
        raise RuntimeError(
            f'LoadCheckHook: expected the {len(own)} entries of this {type(model).__name__} but the checkpoint '
            f'{", ".join(complaints)}; give the checkpoint of the same architecture and classes'
        )


def _check_classes(caller: str, meta: Any, other: str, other_meta: Any) -> None:
    """Known classes must be the same, in the same order, wherever both sides say which they are."""
    sides = [side if isinstance(side, Mapping) else {} for side in (meta, other_meta)]
    if not all({'classes', 'num_known'} <= side.keys() for side in sides):
        return
    known, other_known = (list(side['classes'])[: side['num_known']] for side in sides)
    if known != other_known:
        raise RuntimeError(
            f'LoadCheckHook: expected the same known classes everywhere but {caller} has {known[:10]} and {other} has '
            f'{other_known[:10]}; set `known` alike in every NovelClassSplit of both stages'
        )


def _evaluation_loader(runner: Runner) -> Any:
    loops = [loop for loop in (runner._test_loop, runner._val_loop) if isinstance(loop, BaseLoop)]
    return loops[0].dataloader if loops else None


def _metainfo(dataloader: Any) -> Mapping[str, Any]:
    return getattr(dataloader.dataset, 'metainfo', {})
