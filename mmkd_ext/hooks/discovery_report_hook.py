"""The report that a person sees at the end of discovery."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from mmkd_ext import visualization
from mmkd_ext.distill import Recorder
from mmkd_ext.engine.runner import student_of
from mmkd_ext.evaluation import best_head, read_prediction
from mmkd_ext.hooks.final_evaluation_hook import FinalEvaluationHook
from mmkd_ext.registry import HOOKS
from mmkd_ext.visualization import Assignment, CurveHistory, Discovery, DiscoveryCollector

__all__ = ['DiscoveryReportHook']

_HISTORY = 'discovery_report_curves'
"""Entry of the checkpoint."""


@HOOKS.register_module()
class DiscoveryReportHook(FinalEvaluationHook):
    """Writes a folder with pictures, numbers and a page that explains them, at the end of discovery.

    The last validation of a training run, and every test run, fill ``<work_dir>/<out_dir>``: ``report.md``,
    ``metrics.json``, ``assignments.csv``, and ``confusion``, ``gallery``, ``embedding_map`` and ``curves`` as PNG. Each
    picture also goes to the backends of the runner's visualiser. Numbers are written before any picture is drawn. The
    points of the curves live in the checkpoint and in ``curves.json``, so a resumed run draws whole curves. A model
    without novel head has discovered nothing: the hook says so in one line and leaves no report.

    The evaluation data must not be shuffled (mmengine's default): images for the gallery are read again by position.

    Args:
        out_dir: Folder below the work folder, or an absolute path.
        split: ``split_name`` of the data whose clusters the gallery shows.
        tap: Module whose output is the embedding (:class:`mmkd_ext.distill.Tap`).
        max_points: Most points of the embedding map.
        images_per_class: Images per discovered class, two thirds most and one third least confident.

    Raises:
        OSError: Before training, if the folder cannot be written.
        KeyError: Before training, if ``tap`` names no module.
    """

    def __init__(
        self,
        out_dir: str = 'report',
        split: str = 'unlabelled_train',
        tap: str = 'embedding',
        max_points: int = 2000,
        images_per_class: int = 12,
    ) -> None:
        super().__init__()
        for name, value in (('max_points', max_points), ('images_per_class', images_per_class)):
            if value < 1:
                raise ValueError(f'DiscoveryReportHook: expected {name} >= 1 but got {value}; give a positive number')
        self.out_dir = out_dir
        self.split = split
        self.tap = tap
        self.max_points = max_points
        self.images_per_class = images_per_class
        self._recorder: Recorder | None = None
        self._collector: DiscoveryCollector | None = None
        self._history = CurveHistory()
        self._saved: dict[str, Any] | None = None
        self._is_done = False

    def before_run(self, runner: Runner) -> None:
        """Fail now rather than after training: the folder must be writable, the tap must exist.

        Args:
            runner: The runner.
        """
        self._folder = Path(runner.work_dir) / self.out_dir
        problem = [visualization.write_problem(self._folder) if is_main_process() else None]
        broadcast_object_list(problem)
        if problem[0] is not None:
            raise OSError(
                f'DiscoveryReportHook: expected a folder to write the report to but got {self._folder} '
                f'({problem[0]}); choose another work_dir or out_dir'
            )
        self._recorder = Recorder(student_of(runner), [self.tap], caller='DiscoveryReportHook')
        self._history = CurveHistory.load(self._folder / 'curves.json')

    def after_run(self, runner: Runner) -> None:
        """Take the recorder off the model.

        Args:
            runner: The runner.
        """
        self._recorder.remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the curves, with the losses of the unfinished epoch.

        Args:
            runner: The runner.
            checkpoint: Its entry ``discovery_report_curves`` is written.
        """
        checkpoint[_HISTORY] = self._history.state()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the curves for the case that the run is resumed.

        Args:
            runner: The runner.
            checkpoint: What the file held.
        """
        self._saved = checkpoint.get(_HISTORY)

    def before_train(self, runner: Runner) -> None:
        """Continue the curves of an interrupted run: those of its checkpoint, and later ones of its file.

        The checkpoint of an epoch is written before the validation of that epoch, which only the file knows.

        Args:
            runner: The runner.
        """
        super().before_train(runner)
        on_disk, self._history = self._history, CurveHistory()
        progress, unit = visualization.progress(runner)
        if progress:
            self._history = CurveHistory(self._saved)
            self._history.fill_up(on_disk, until=progress)
        self._history.progress_name = unit

    def after_train(self, runner: Runner) -> None:
        """Note that a later validation is not part of training; a run that stopped early has no report.

        Args:
            runner: The runner.
        """
        super().after_train(runner)
        if not self._is_done:
            runner.logger.warning(
                'DiscoveryReportHook: training ended without a validation after its last iteration, so there is no '
                'report; test the checkpoint to get one'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Add up the losses, without waiting for the device.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: Not used.
            outputs: Losses by name.
        """
        self._history.observe(outputs or {})

    def after_train_epoch(self, runner: Runner) -> None:
        """Put the mean losses of the epoch on the curves.

        Args:
            runner: The runner.
        """
        self._history.add_losses(visualization.progress(runner)[0])

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Begin to collect, if the report is about this evaluation."""
        if self._is_final(runner, mode):
            loader = runner.test_dataloader if mode == 'test' else runner.val_dataloader
            self._collector = DiscoveryCollector(len(loader.dataset), self.max_points)

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        if mode != 'train' and self._collector is not None:
            self._recorder.start()

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
        mode: str = 'train',
    ) -> None:
        if mode == 'train' or self._collector is None:
            return
        embeddings = self._recorder.stop()[self.tap]
        if 'novel_logits' not in outputs[0]:
            runner.logger.info('DiscoveryReportHook: the model has no novel head, so there is nothing to report')
            self._collector, self._is_done = None, True
            return
        samples = [sample.to_dict() for sample in outputs]
        self._num_known, self._num_clusters = len(samples[0]['known_logits']), samples[0]['novel_logits'].shape[1]
        self._collector.add([_assignment(sample) for sample in samples], embeddings.float().cpu().numpy())

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Put the metrics on the curves, and after the last validation write the report.

        Args:
            runner: The runner.
            metrics: Results of the evaluator.
        """
        if self._is_training:
            progress, _ = visualization.progress(runner)
            self._history.add_losses(progress)
            self._history.add_metrics(progress, metrics or {})
            if is_main_process():
                self._history.save(self._folder / 'curves.json')
        self._finish(runner, runner.val_dataloader.dataset, metrics or {})

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Write the report.

        Args:
            runner: The runner.
            metrics: Results of the evaluator.
        """
        self._finish(runner, runner.test_dataloader.dataset, metrics or {})

    def _finish(self, runner: Runner, dataset: Dataset, metrics: Mapping[str, Any]) -> None:
        """Gather what was collected, if anything, and let the main process write it."""
        if self._collector is None:
            return
        class_names = getattr(dataset, 'metainfo', {}).get('classes')
        discovery = self._collector.gather(class_names, self._num_known, self._num_clusters)
        self._collector, self._is_done = None, True
        if discovery is not None:
            self._write(runner, discovery, dataset, metrics)

    def _write(self, runner: Runner, discovery: Discovery, dataset: Dataset, metrics: Mapping[str, Any]) -> None:
        settings = visualization.run_settings(runner, is_training=self._is_training)
        is_bgr = getattr(student_of(runner).data_preprocessor, 'to_rgb', False)

        def read_image(position: int) -> np.ndarray:
            return visualization.thumbnail(dataset, position, discovery.assignments[position], is_bgr=is_bgr)

        def show(name: str, picture: np.ndarray) -> None:
            runner.visualizer.add_image(f'report_{name}', picture, step=settings['iteration'])

        visualization.write_report(
            self._folder,
            discovery,
            split=self._shown_split(runner, discovery),
            metrics=metrics,
            settings=settings,
            history=self._history,
            images_per_class=self.images_per_class,
            read_image=read_image,
            show=show,
        )
        runner.logger.info(visualization.console_summary(discovery, metrics, self._folder))

    def _shown_split(self, runner: Runner, discovery: Discovery) -> str:
        if self.split in discovery.splits:
            return self.split
        runner.logger.warning(
            f'DiscoveryReportHook: expected samples of split {self.split!r} but got {discovery.splits}; '
            f'the gallery shows {discovery.splits[0]!r}'
        )
        return discovery.splits[0]


def _assignment(sample: Mapping[str, Any]) -> Assignment:
    """Read where the best head puts a predicted sample."""
    num_known = len(sample['known_logits'])
    prediction = read_prediction(sample, num_known=num_known, caller='DiscoveryReportHook')
    head = best_head(sample['head_objective'].tolist())
    scores = sample['pred_score'].float()
    novel_scores = scores[num_known:]
    return Assignment(
        int(sample.get('sample_idx', -1)),
        prediction.split,
        prediction.label,
        prediction.task_aware[head],
        prediction.task_agnostic[head],
        float(novel_scores.max() / novel_scores.sum().clamp_min(torch.finfo(torch.float32).tiny)),
        float(scores.max()),
    )
