"""Hooks that look after the model: what it is loaded from, its batch norms, its best head, its temperature."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from torch import nn

from mmkd_ext.engine.cpu import SyncBatchNorm, convert_sync_batch_norm
from mmkd_ext.engine.runner import student_of
from mmkd_ext.heads import NovelHead
from mmkd_ext.hooks.resume_hook import resumed_batches
from mmkd_ext.models.build import part_of, surplus_entries
from mmkd_ext.ops.arguments import check_positive
from mmkd_ext.registry import HOOKS


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

    def before_run(self, runner: Runner) -> None:
        """Compare what parts of the model will be initialised from; a run that resumes does not need it.

        Args:
            runner: The runner; weights are not initialised yet.

        Raises:
            RuntimeError: A part is missing in its checkpoint, or has other shapes there.
        """
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            model = student_of(runner)
            for name, part in model.named_modules():
                init_cfg = getattr(part, 'init_cfg', None)
                for cfg in init_cfg if isinstance(init_cfg, Sequence) else [init_cfg]:
                    if isinstance(cfg, Mapping) and cfg.get('type') == 'Pretrained' and not _is_set(part):
                        check_pretrained(name, part, cfg, new=self.new)

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


def _is_set(part: nn.Module) -> bool:
    """Whether mmengine has initialised a part already, and will not again."""
    return bool(getattr(part, '_is_init', False))


def check_pretrained(
    name: str, part: nn.Module, cfg: Mapping[str, Any], *, new: Sequence[str] = (), caller: str = 'LoadCheckHook'
) -> None:
    """Compare a part of a model with the checkpoint that it will start from.

    Args:
        name: Of the part in its model; '' for the model itself.
        part: The part.
        cfg: Its ``init_cfg`` of type ``Pretrained``: ``checkpoint`` and perhaps ``prefix``.
        new: Parts of the model that the checkpoint may lack.
        caller: Who asks, for the error.

    Raises:
        RuntimeError: An entry of the part is missing in the checkpoint, or has another shape there.
    """
    checkpoint = CheckpointLoader.load_checkpoint(cfg['checkpoint'], map_location='cpu')
    weights = checkpoint.get('state_dict', checkpoint)
    weights = {entry.removeprefix('module.'): value for entry, value in weights.items() if hasattr(value, 'shape')}
    prefix = cfg.get('prefix') or ''
    prefix = prefix if not prefix or prefix.endswith('.') else f'{prefix}.'
    found = {entry.removeprefix(prefix): value for entry, value in weights.items() if entry.startswith(prefix)}
    own = {
        entry: value
        for entry, value in part.state_dict().items()
        if part_of(f'{name}.{entry}' if name else entry) not in new and not entry.endswith('num_batches_tracked')
    }
    misfits = [entry for entry, value in own.items() if entry not in found or found[entry].shape != value.shape]
    if misfits:
        raise RuntimeError(
            f'{caller}: expected all {len(own)} entries of {name or "the model"} ({type(part).__name__}) in '
            f'{cfg["checkpoint"]} but {len(misfits)} are missing or of other shapes there, such as {misfits[:3]}; '
            f'its names{f" after {prefix!r}" if prefix else ""} are {list(found or weights)[:3]}: give the weights of '
            'the same architecture, or the right prefix'
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


# --------------------------------------------------------------------------------------------------
# Batch norm over all processes where torch's own does not work.


@HOOKS.register_module()
class SyncBatchNormHook(Hook):
    """Puts :class:`mmkd_ext.models.SyncBatchNorm` in the place of every batch norm of the model before the run.

    ``mmkd train`` adds this hook where the config has ``sync_bn``, which torch supports on GPUs only, and processes
    work on CPUs. Checkpoints have the same keys.
    """

    # Before any hook that copies, taps or compiles modules.
    priority = 'HIGHEST'

    def before_run(self, runner: Runner) -> None:
        """Convert the model.

        Args:
            runner: The runner.
        """
        convert_sync_batch_norm(runner.model)
        count = sum(isinstance(module, SyncBatchNorm) for module in runner.model.modules())
        print_log(f'{count} batch norms take their statistics over all processes', logger='current')


# --------------------------------------------------------------------------------------------------
# Statistics behind the choice of the best discovery head.


@HOOKS.register_module()
class BestHeadHook(Hook):
    """Chooses the best head by the training objective of the last epoch alone, over all processes.

    Each :class:`mmkd_ext.heads.NovelHead` sums the objective of its heads. This hook empties the sums before each
    epoch, as UNO v2 does (the code of Cr-KD accumulates over all epochs), and adds them up over processes after it.
    Then validation chooses the same head in every process, and a checkpoint written after the epoch holds the choice.
    Nothing happens for a model without such heads. Meant for epoch-based training: an iteration-based loop counts as
    one epoch. An epoch that :class:`mmkd_ext.ExactResumeHook` resumes in the middle keeps its sums.
    """

    # Before CheckpointHook (VERY_LOW), which writes the statistics.
    priority = 'NORMAL'

    def before_train_epoch(self, runner: Runner) -> None:
        """Empty the statistics, unless they are those of the first part of this epoch.

        Args:
            runner: The runner.
        """
        if resumed_batches(runner):
            return
        for head in _novel_heads(runner):
            head.reset_objective()

    def after_train_epoch(self, runner: Runner) -> None:
        """Add the statistics of all processes.

        Args:
            runner: The runner.
        """
        for head in _novel_heads(runner):
            all_reduce(head.objective_sum)
            all_reduce(head.objective_count)


def _novel_heads(runner: Runner) -> list[NovelHead]:
    return [module for module in student_of(runner).modules() if isinstance(module, NovelHead)]


# --------------------------------------------------------------------------------------------------
# The schedule of SimGCD's self-distillation.


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
