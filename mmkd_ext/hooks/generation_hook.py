"""Self-distillation in generations: each student becomes the teacher of the next one, in one run."""

import json
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_ext.engine.runner import InitialState, averages_of, model_config, new_weights, student_of
from mmkd_ext.hooks.distill_hook import TERM_STATES, DistillHook
from mmkd_ext.io import replacing, sha256, table, write_text
from mmkd_ext.registry import HOOKS

_TEACHER_DIGEST = 'generation_teacher_sha256'
_STRIDE = 1_000_003  # between the seeds of generations, so that runs with seeds 0, 1, 2, ... share no initial weights


class _DistillGeneration(DistillHook):
    """The terms of one generation: their schedules count from its start."""

    def __init__(self, start: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start

    def _time(self, runner: Runner) -> dict[str, int]:
        return {unit: time - self.start[unit] for unit, time in super()._time(runner).items()}


@HOOKS.register_module()
class GenerationHook(Hook):
    r"""Trains ``num_generations`` students one after the other, each taught by the finished one before it.

    ``max_epochs`` (or ``max_iters``) of the config is divided evenly. Generation 0 has no teacher. Where a later one
    begins, the finished student is written to ``work_dir/generation_<g>.pth`` and read back as frozen teacher of the
    same architecture, the student starts from new weights, and optimizer and schedulers go back to the state in which
    they were built: a schedule in the config is that of one generation.

    The generation follows from the epoch; the file's SHA-256 is in every checkpoint, so that a resumed run has the
    teacher it had. The last validation of each generation is kept in ``work_dir/generations.json`` and printed as a
    table at the end.

    Source: Furlanello et al., Born-Again Neural Networks, ICML 2018 (arXiv 1805.04770): student :math:`k` minimises
    :math:`L(f(x; \theta_k), y) + L_{KD}(f(x; \theta_k), f(x; \theta_{k-1}^*))` from a random :math:`\theta_k`.

    Args:
        num_generations: At least 2, generation 0 included.
        reinit: Whether each student starts from new weights, as in the paper. They are those that ``model`` of the
            config gives for a seed of the run and the generation; False keeps the weights.
        **distill: Arguments of :class:`mmkd_ext.DistillHook` other than ``teacher``, above all ``terms``.

    Raises:
        ValueError: Fewer than two generations.

    Example:
        >>> custom_hooks = [dict(
        ...     type='mmkd_ext.GenerationHook',
        ...     num_generations=3,
        ...     terms=dict(kd=dict(tap='head.fc', loss=dict(type='mmkd_ext.SoftTargetLoss', temperature=4.0))))]
    """

    # The DistillHook of each generation is registered during a call of this hook and must come after it.
    priority = 'ABOVE_NORMAL'

    def __init__(self, num_generations: int, reinit: bool = True, **distill: Any) -> None:
        if num_generations < 2:
            raise ValueError(f'GenerationHook: expected at least 2 generations but got {num_generations}')
        self.num_generations = num_generations
        self.reinit = reinit
        self._distill_options = distill
        self._distill: DistillHook | None = None
        self._generation: int | None = None
        self._length = 0
        self._metrics: dict[str, dict[str, Any]] = {}
        self._loaded: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what terms chose before the run was cut off, for the generation that goes on."""
        self._loaded = {TERM_STATES: checkpoint.get(TERM_STATES, {})}

    def before_run(self, runner: Runner) -> None:
        """Remember the states in which optimizer and schedulers were built: a resumed run overwrites them next."""
        if isinstance(runner.optim_wrapper, OptimWrapper):  # still a config where nothing is trained
            self._initial_state = InitialState(runner)

    def before_train(self, runner: Runner) -> None:
        """Check everything that later generations need, with an untrained teacher.

        Raises:
            ValueError: The length of training is no multiple of the generations, or ``load_from`` is set.
            RuntimeError: The runner was built without a config.
            KeyError, TypeError: see :class:`mmkd_ext.DistillHook`.
        """
        unit, length = ('iter', runner.max_iters) if _counts_iterations(runner) else ('epoch', runner.max_epochs)
        self._length, rest = divmod(length, self.num_generations)
        if rest or not self._length:
            raise ValueError(
                f'GenerationHook: expected max_{unit}s to be a multiple of the {self.num_generations} generations but '
                f'got {length}; it is the total, so set it to {self.num_generations} times that of one generation'
            )
        if self.reinit and runner.cfg.get('load_from') and not runner.cfg.get('resume'):
            raise ValueError(
                f'GenerationHook: expected no load_from but got {runner.cfg.load_from!r}, which only generation 0 '
                "would start from; use init_cfg=dict(type='Pretrained', checkpoint=...) in the model, or reinit=False"
            )
        runner.logger.info(
            f'GenerationHook: {self.num_generations} generations of {self._length} {unit}s; trying the terms with an '
            'untrained teacher'
        )
        self._attach(runner, generation=0, checkpoint=None)
        self._detach(runner)
        done = _progress(runner)
        file = _metrics_file(runner)
        previous = json.loads(file.read_text()) if done and file.is_file() else {}
        self._metrics = {name: entry for name, entry in previous.items() if entry[unit] <= done}

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin a generation where the loop counts epochs.

        Raises:
            FileNotFoundError, ValueError: A resumed run does not find the teacher it had.
        """
        if not _counts_iterations(runner):
            self._enter(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Begin a generation where the loop counts iterations; raises as :meth:`before_train_epoch`."""
        if _counts_iterations(runner):
            self._enter(runner)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Keep the metrics of the generation that was trained last; a later validation replaces them."""
        if not self._length or not is_main_process():
            return
        # Not the current one: a resumed run may begin with the validation that it was killed in.
        generation = (_progress(runner) - 1) // self._length
        unit = 'iter' if _counts_iterations(runner) else 'epoch'
        numbers = {name: float(value) for name, value in (metrics or {}).items() if isinstance(value, Real)}
        self._metrics[str(generation)] = {unit: _progress(runner), 'metrics': numbers}
        write_text(_metrics_file(runner), json.dumps(self._metrics, indent=1))

    def after_train(self, runner: Runner) -> None:
        """Write the last student and print one row of metrics per generation."""
        last = self.num_generations - 1 if self._generation is None else self._generation
        self._write_student(runner, last)
        if self._metrics:
            runner.logger.info(f'GenerationHook: last validation of each generation\n{_table(self._metrics)}')

    def _enter(self, runner: Runner) -> None:
        generation, position = divmod(_progress(runner), self._length)
        if generation == self._generation:
            return
        if generation > 0:
            if position == 0:
                self._write_student(runner, generation - 1)
                runner.message_hub.update_info(_TEACHER_DIGEST, sha256(_student_file(runner, generation - 1)))
                self._restart(runner, generation)
            else:
                self._check_teacher(runner, generation)
            self._detach(runner)
            hook = self._attach(runner, generation, checkpoint=str(_student_file(runner, generation - 1)))
            if position:
                hook.after_load_checkpoint(runner, self._loaded)
            if runner.cfg.get('compile'):
                torch.compiler.reset()  # a compiled model ignores hooks that come after its first call
        self._generation = generation

    def _attach(self, runner: Runner, generation: int, checkpoint: str | None) -> DistillHook:
        teacher = {'model': model_config(runner), 'checkpoint': checkpoint}
        share = generation / self.num_generations
        start = {'epoch': round(share * runner.max_epochs), 'iteration': round(share * runner.max_iters)}
        hook = self._distill = _DistillGeneration(start, teacher=teacher, **self._distill_options)
        runner.register_hook(hook)
        hook.before_train(runner)
        return hook

    def _detach(self, runner: Runner) -> None:
        if self._distill is not None:
            self._distill.after_train(runner)
            runner.hooks.remove(self._distill)
            self._distill = None

    def _restart(self, runner: Runner, generation: int) -> None:
        self._initial_state.restore(runner)
        if self.reinit:
            student_of(runner).load_state_dict(new_weights(runner, runner.seed + _STRIDE * generation))
        runner.logger.info(
            f'GenerationHook: generation {generation} of {self.num_generations} begins, taught by generation '
            f'{generation - 1}; {"new" if self.reinit else "the same"} weights, optimizer and schedulers restarted'
        )

    def _write_student(self, runner: Runner, generation: int) -> None:
        """Write the weights that a validation would use: those of EMA where there is one."""
        averages = averages_of(runner)
        finished = averages[0].module if averages else student_of(runner)
        path = _student_file(runner, generation)
        if is_main_process():
            with replacing(path) as partial:
                torch.save({'state_dict': finished.state_dict(), 'meta': {'generation': generation}}, partial)
        barrier()

    def _check_teacher(self, runner: Runner, generation: int) -> None:
        path = _student_file(runner, generation - 1)
        remedy = f'restore it, or resume from the checkpoint at the end of generation {generation - 1}, which writes it'
        if not path.is_file():
            raise FileNotFoundError(
                f'GenerationHook: expected the teacher of generation {generation} at {path} but found no file; {remedy}'
            )
        expected = runner.message_hub.get_info(_TEACHER_DIGEST)
        if sha256(path) != expected:
            raise ValueError(
                f'GenerationHook: expected the teacher that this checkpoint was trained with (SHA-256 {expected}) but '
                f'{path} has changed (SHA-256 {sha256(path)}); {remedy}'
            )


def _counts_iterations(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def _progress(runner: Runner) -> int:
    """Return the number of finished epochs or iterations."""
    return runner.iter if _counts_iterations(runner) else runner.epoch


def _student_file(runner: Runner, generation: int) -> Path:
    return Path(runner.work_dir, f'generation_{generation}.pth')


def _metrics_file(runner: Runner) -> Path:
    return Path(runner.work_dir, 'generations.json')


def _table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out one row per generation."""
    names = list(dict.fromkeys(name for entry in metrics.values() for name in entry['metrics']))
    rows = [
        [generation, *(f'{entry["metrics"][name]:.4g}' if name in entry['metrics'] else '-' for name in names)]
        for generation, entry in metrics.items()
    ]
    return table(['generation', *names], rows)
