"""Pictures of what an embedding finds, teacher beside student."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.image import imsave
from mmengine.dist import collect_results, is_main_process
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Dataset

from mmkd_ext.distill import FrozenTeacher
from mmkd_ext.engine.runner import student_of
from mmkd_ext.evaluation import EmbeddedSample, read_embedding
from mmkd_ext.hooks.final_evaluation_hook import FinalEvaluationHook
from mmkd_ext.models.teacher import build_teacher, check_teacher_spec
from mmkd_ext.ops.distances import unit_rows
from mmkd_ext.registry import HOOKS
from mmkd_ext.scores.neighbours import nearest_neighbours
from mmkd_ext.visualization import GalleryImage, NeighbourRow, neighbours_figure, small_picture
from mmkd_ext.visualization.figures import style

__all__ = ['NeighbourReportHook']

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
            built = build_teacher(self.teacher, [self.teacher_tap], student, 'NeighbourReportHook: teacher')
            self._teacher = built.frozen.to(next(student.parameters()).device)

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Begin to collect, if this evaluation is to be drawn."""
        if self._is_final(runner, mode):
            self._samples = []

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
        mode: str = 'train',
    ) -> None:
        if mode == 'train' or self._samples is None:
            return
        of_teacher = [None] * len(outputs) if self._teacher is None else self._embed(runner, data_batch)
        samples = [read_embedding(sample.to_dict(), 'NeighbourReportHook') for sample in outputs]
        self._samples += zip(samples, of_teacher, strict=True)

    def _embed(self, runner: Runner, data_batch: Any) -> np.ndarray:
        data = student_of(runner).data_preprocessor(data_batch, False)
        embedding = self._teacher.features(data['inputs'], data['data_samples'], mode='tensor')[self.teacher_tap]
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

    def _finish(self, runner: Runner, dataset: Dataset) -> None:
        """Gather what was collected, if anything, and let the main process draw it."""
        if self._samples is None:
            return
        samples = collect_results(self._samples, len(dataset))
        self._samples = None
        if is_main_process():
            self._draw(runner, dataset, samples)

    def _draw(self, runner: Runner, dataset: Dataset, samples: Sequence[tuple[EmbeddedSample, np.ndarray]]) -> None:
        num_queries = min(self.num_queries, len(samples))
        queries = np.sort(np.random.default_rng(self.seed).permutation(len(samples))[:num_queries]).tolist()
        embeddings = {_STUDENT: [sample.embedding for sample, _ in samples]}
        if self._teacher is not None:
            embeddings = {_TEACHER: [embedding for _, embedding in samples], **embeddings}
        found = {name: self._search(np.stack(rows), queries) for name, rows in embeddings.items()}
        class_names = getattr(dataset, 'metainfo', {}).get('classes')
        preprocessor = student_of(runner).data_preprocessor
        # The name of the switch here, and in mmpretrain.
        is_bgr = any(getattr(preprocessor, name, False) for name in ('to_rgb', '_channel_conversion'))

        def image(position: int, query: int) -> GalleryImage:
            label = samples[position][0].label
            pixels = small_picture(dataset[position]['inputs'], is_bgr=is_bgr)
            name = class_names[label] if class_names else str(label)
            return GalleryImage(pixels, name, is_wrong=label != samples[query][0].label)

        rows = [
            NeighbourRow(
                image(query, query), {name: [image(j, query) for j in rows[i]] for name, rows in found.items()}
            )
            for i, query in enumerate(queries)
        ]
        picture = style.to_array(neighbours_figure(rows, title=f'Nearest of {len(samples)} images'))
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
