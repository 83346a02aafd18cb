"""Reports at the end: what was discovered, and the nearest neighbours of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.image import imsave
from mmengine.dist import broadcast_object_list, collect_results, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmkd_ext import visualization
from mmkd_ext.distill import FrozenTeacher, Recorder
from mmkd_ext.distill.features import call_of
from mmkd_ext.distill.inputs import reverses_channels
from mmkd_ext.engine.runner import progress as run_progress
from mmkd_ext.engine.runner import run_settings, student_of
from mmkd_ext.evaluation import EmbeddedSample, best_head, read_embedding, read_prediction
from mmkd_ext.models.teacher import build_teacher, check_teacher_spec
from mmkd_ext.ops.arguments import unit_rows
from mmkd_ext.registry import HOOKS
from mmkd_ext.scores.neighbours import nearest_neighbours
from mmkd_ext.visualization.figures import style


class FinalEvaluationHook(Hook):
    """Base of hooks that report on every test, on a validation on its own, and on the last one of training."""

    # After LoggerHook (BELOW_NORMAL), so that the report is the last thing on the console; before CheckpointHook
    # (VERY_LOW), which writes what a report keeps.
    priority = 'LOW'

    def __init__(self) -> None:
        self._is_training = False

    def before_train(self, runner: Runner) -> None:
        """Note that only the last validation is reported on.

        Args:
            runner: The runner.
        """
        self._is_training = True

    def after_train(self, runner: Runner) -> None:
        """Note that a later validation is not part of training.

        Args:
            runner: The runner.
        """
        self._is_training = False

    def _is_final(self, runner: Runner, mode: str) -> bool:
        """Tell whether an epoch that begins is a test, a validation on its own, or the last one of training."""
        return mode == 'test' or (mode == 'val' and (not self._is_training or runner.iter >= runner.max_iters))

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Collect what the report needs of a batch.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: As the model got it.
            outputs: Predicted samples.
        """
        self._collect(runner, data_batch, outputs or ())

    after_test_iter = after_val_iter

    def _collect(self, runner: Runner, data_batch: Any, samples: Sequence[BaseDataElement]) -> None:
        raise NotImplementedError(f'{type(self).__name__}: expected its own _collect(); define it')


# --------------------------------------------------------------------------------------------------
# The report that a person sees at the end of discovery.

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
        self._collector: visualization.DiscoveryCollector | None = None
        self._history = visualization.CurveHistory()
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
        self._history = visualization.CurveHistory.load(self._folder / 'curves.json')

    def after_run(self, runner: Runner) -> None:
        """Take the recorder off the model.

        Args:
            runner: The runner.
        """
        self._recorder.remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the curves; the Runner keeps the losses of the unfinished epoch.

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
        on_disk, self._history = self._history, visualization.CurveHistory()
        progress, unit = run_progress(runner)
        if progress:
            self._history = visualization.CurveHistory(self._saved)
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

    def after_train_epoch(self, runner: Runner) -> None:
        """Put the mean losses of the epoch on the curves.

        Args:
            runner: The runner.
        """
        self._add_losses(runner)

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Begin to collect, if the report is about this evaluation."""
        if self._is_final(runner, mode):
            loader = runner.test_dataloader if mode == 'test' else runner.val_dataloader
            self._collector = visualization.DiscoveryCollector(len(loader.dataset), self.max_points)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Record the embedding, if the report is about this evaluation.

        Args:
            runner: Not used.
            batch_idx: Not used.
            data_batch: Not used.
        """
        if self._collector is not None:
            self._recorder.start()

    before_test_iter = before_val_iter

    def _collect(self, runner: Runner, data_batch: Any, outputs: Sequence[BaseDataElement]) -> None:
        if self._collector is None:
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
            self._add_losses(runner)
            self._history.add_metrics(run_progress(runner)[0], metrics or {})
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

    def _add_losses(self, runner: Runner) -> None:
        """Put on the curves what the Runner keeps of the losses of each iteration since the last point."""
        progress, unit = run_progress(runner)
        per_unit = len(runner.train_dataloader) if unit == 'epoch' else 1
        num_iters = round((progress - self._history.losses_end) * per_unit)
        if num_iters:
            scalars = runner.message_hub.log_scalars.items()
            losses = {name: scalar for name, scalar in scalars if name.startswith('train/') and 'loss' in name}
            means = {name.removeprefix('train/'): loss.mean(num_iters) for name, loss in losses.items()}
            self._history.add_losses(progress, means)

    def _finish(self, runner: Runner, dataset: Any, metrics: Mapping[str, Any]) -> None:
        """Gather what was collected, if anything, and let the main process write it."""
        if self._collector is None:
            return
        class_names = getattr(dataset, 'metainfo', {}).get('classes')
        discovery = self._collector.gather(class_names, self._num_known, self._num_clusters)
        self._collector, self._is_done = None, True
        if discovery is not None:
            self._write(runner, discovery, dataset, metrics)

    def _write(
        self, runner: Runner, discovery: visualization.Discovery, dataset: Any, metrics: Mapping[str, Any]
    ) -> None:
        settings = run_settings(runner, is_training=self._is_training)
        is_bgr = reverses_channels(student_of(runner).data_preprocessor)

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

    def _shown_split(self, runner: Runner, discovery: visualization.Discovery) -> str:
        if self.split in discovery.splits:
            return self.split
        runner.logger.warning(
            f'DiscoveryReportHook: expected samples of split {self.split!r} but got {discovery.splits}; '
            f'the gallery shows {discovery.splits[0]!r}'
        )
        return discovery.splits[0]


def _assignment(sample: Mapping[str, Any]) -> visualization.Assignment:
    """Read where the best head puts a predicted sample."""
    num_known = len(sample['known_logits'])
    prediction = read_prediction(sample, num_known=num_known, caller='DiscoveryReportHook')
    head = best_head(sample['head_objective'].tolist())
    scores = sample['pred_score'].float()
    novel_scores = scores[num_known:]
    return visualization.Assignment(
        int(sample.get('sample_idx', -1)),
        prediction.split,
        prediction.label,
        prediction.task_aware[head],
        prediction.task_agnostic[head],
        float(novel_scores.max() / novel_scores.sum().clamp_min(torch.finfo(torch.float32).tiny)),
        float(scores.max()),
    )


# --------------------------------------------------------------------------------------------------
# Pictures of what an embedding finds, teacher beside student.

_STUDENT, _TEACHER = 'student', 'teacher'


@HOOKS.register_module()
class NeighbourReportHook(FinalEvaluationHook):
    """Draws queries with their nearest images after the last validation of a training run, and after every test.

    The picture ``<work_dir>/<out_file>`` has a line for the model and, with ``teacher``, one for its teacher, so one
    sees what was taken over. It also goes to the backends of the runner's visualiser. Every image of the evaluation
    data is searched, the query itself left out. Queries are drawn at random, the same ones for every model and run.

    The evaluation data must not be shuffled (mmengine's default): images are read again by position.

    Args:
        num_queries: Queries to draw.
        num_neighbours: Images per query and model.
        teacher: ``dict(config=..., checkpoint=...)`` as of :class:`mmkd_ext.DistillHook`; None for the model alone.
        teacher_tap: The teacher's tensor (B, D) to compare by (:class:`mmkd_ext.distill.Tap`).
        seed: Decides on the queries.
        out_file: Picture below the work folder, or an absolute path.
        normalize: Whether embeddings, also the teacher's, are scaled to length 1 first, as by
            :class:`mmkd_ext.RetrievalMetric`; with its value the picture ranks as the metric does.

    Raises:
        ValueError: If a number is below 1.
        TypeError: If ``teacher`` has unknown or missing keys.
        FileNotFoundError: Before the run, if the teacher's checkpoint is missing.
        KeyError: Before the run, if ``teacher_tap`` names no module.
    """

    def __init__(
        self,
        num_queries: int = 8,
        num_neighbours: int = 8,
        teacher: Mapping[str, Any] | None = None,
        teacher_tap: str = 'head.normalized',
        seed: int = 0,
        out_file: str = 'neighbours.png',
        normalize: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (('num_queries', num_queries), ('num_neighbours', num_neighbours)):
            if value < 1:
                raise ValueError(f'NeighbourReportHook: expected {name} >= 1 but got {value}; give a positive number')
        if teacher is not None:
            check_teacher_spec(teacher, 'NeighbourReportHook: teacher')
        self.num_queries = num_queries
        self.num_neighbours = num_neighbours
        self.teacher = teacher
        self.teacher_tap = teacher_tap
        self.seed = seed
        self.out_file = out_file
        self.normalize = normalize
        self._teacher: FrozenTeacher | None = None
        self._samples: list[tuple[EmbeddedSample, np.ndarray | None]] | None = None

    def before_run(self, runner: Runner) -> None:
        """Build the teacher, so that what is wrong with it shows before hours of training.

        Args:
            runner: The runner.
        """
        if self.teacher is not None:
            student = student_of(runner)
            loops = [loop for loop in (runner._test_loop, runner._val_loop) if isinstance(loop, BaseLoop)]
            dataset = loops[0].dataloader.dataset if loops else None
            built = build_teacher(self.teacher, [self.teacher_tap], student, 'NeighbourReportHook: teacher', dataset)
            self._teacher = built.frozen.to(next(student.parameters()).device)

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Begin to collect, if this evaluation is to be drawn."""
        if self._is_final(runner, mode):
            self._samples = []

    def _collect(self, runner: Runner, data_batch: Any, outputs: Sequence[BaseDataElement]) -> None:
        if self._samples is None:
            return
        of_teacher = [None] * len(outputs) if self._teacher is None else self._embed(runner, self._teacher, data_batch)
        samples = [read_embedding(sample.to_dict(), 'NeighbourReportHook') for sample in outputs]
        self._samples += zip(samples, of_teacher, strict=True)

    def _embed(self, runner: Runner, teacher: FrozenTeacher, data_batch: Any) -> np.ndarray:
        data = student_of(runner).data_preprocessor(data_batch, False)
        embedding = teacher.features(**call_of(data, mode='tensor'))[self.teacher_tap]
        return embedding.flatten(1).float().cpu().numpy()

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Draw, if this validation was collected.

        Args:
            runner: The runner.
            metrics: Not used.
        """
        self._finish(runner, runner.val_dataloader.dataset)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Draw.

        Args:
            runner: The runner.
            metrics: Not used.
        """
        self._finish(runner, runner.test_dataloader.dataset)

    def _finish(self, runner: Runner, dataset: Any) -> None:
        """Gather what was collected, if anything, and let the main process draw it."""
        if self._samples is None:
            return
        samples = collect_results(self._samples, len(dataset))
        self._samples = None
        if is_main_process():
            self._draw(runner, dataset, samples)

    def _draw(self, runner: Runner, dataset: Any, samples: Sequence[tuple[EmbeddedSample, np.ndarray]]) -> None:
        num_queries = min(self.num_queries, len(samples))
        queries = np.sort(np.random.default_rng(self.seed).permutation(len(samples))[:num_queries]).tolist()
        embeddings = {_STUDENT: [sample.embedding for sample, _ in samples]}
        if self._teacher is not None:
            embeddings = {_TEACHER: [embedding for _, embedding in samples], **embeddings}
        found = {name: self._search(np.stack(rows), queries) for name, rows in embeddings.items()}
        class_names = getattr(dataset, 'metainfo', {}).get('classes')
        is_bgr = reverses_channels(student_of(runner).data_preprocessor)

        def image(position: int, query: int) -> visualization.GalleryImage:
            label = samples[position][0].label
            pixels = visualization.small_picture(dataset[position]['inputs'], is_bgr=is_bgr)
            name = class_names[label] if class_names else str(label)
            return visualization.GalleryImage(pixels, name, is_wrong=label != samples[query][0].label)

        rows = [
            visualization.NeighbourRow(
                image(query, query), {name: [image(j, query) for j in rows[i]] for name, rows in found.items()}
            )
            for i, query in enumerate(queries)
        ]
        picture = style.to_array(visualization.neighbours_figure(rows, title=f'Nearest of {len(samples)} images'))
        path = Path(runner.work_dir) / self.out_file
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, picture, dpi=style.DPI)
        runner.visualizer.add_image('neighbours', picture, step=runner.iter if self._is_training else 0)
        runner.logger.info(f'NeighbourReportHook: {path}')

    def _search(self, embeddings: np.ndarray, queries: Sequence[int]) -> list[list[int]]:
        """Neighbours of some samples among all others."""
        gallery: Tensor = torch.from_numpy(embeddings)
        gallery = unit_rows(gallery) if self.normalize else gallery
        nearest = nearest_neighbours(gallery[queries], gallery, k=self.num_neighbours + 1).tolist()
        return [
            [index for index in found if index != query][: self.num_neighbours]
            for query, found in zip(queries, nearest, strict=True)
        ]
