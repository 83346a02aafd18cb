"""Clusters of the training images: superclasses before training, for SUR, and classes after it, for GCD."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import all_gather_object, broadcast, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmkd_ext.clustering.kmeans import semi_supervised_kmeans, superclasses
from mmkd_ext.distill import FrozenTeacher, Recorder, fingerprint, model_fingerprint, same_randomness
from mmkd_ext.engine.runner import student_of
from mmkd_ext.engine.teacher_features import (
    dataset_fingerprint,
    features_of_dataset,
    test_pipeline,
    view_fingerprint,
    with_pipeline,
)
from mmkd_ext.heads import ClusterHead
from mmkd_ext.io import write_text
from mmkd_ext.models.teacher import build_teacher, check_teacher_spec
from mmkd_ext.ops.arguments import unit_rows
from mmkd_ext.registry import HOOKS
from mmkd_ext.samplers.planned import labels_of


class _Embedder:
    """Makes features of a model in training look like those of a frozen teacher, for :func:`features_of_dataset`.

    Args:
        model: Has the tap.
        tap: Name of the feature (:class:`mmkd_ext.distill.Tap`).
    """

    def __init__(self, model: nn.Module, tap: str) -> None:
        self.model = model
        self.recorder = Recorder(model, [tap], caller='ClusterHook')

    @torch.no_grad()
    def features(self, **call: Any) -> dict[str, torch.Tensor]:
        """Run the model and return the tapped feature by its name."""
        with self.recorder.record() as features:
            self.model(**call)
        return features


@HOOKS.register_module()
class ClusterHook(Hook):
    """Gives the :class:`mmkd_ext.heads.ClusterHead` of a model its centres, before validation and after the last epoch.

    The images of training, labelled and unlabelled, pass the test-time pipeline and the model in evaluation mode; their
    unit features are clustered (:func:`mmkd_ext.clustering.kmeans`). Labels are those that training
    sees, so those of unlabelled images have no part in it. Training is that of a run without the hook. Checkpoints
    between validations hold the centres of the last one.

    Source: Vaze et al., Generalized Category Discovery, CVPR 2022 (arXiv 2201.02609), Sec. 3.2.

    Args:
        tap: The feature, (B, D).
        num_inits: Starts of k-means.
        seed: Of the starts.
        batch_size: Images in one forward.
    """

    # Before CheckpointHook (VERY_LOW), which writes the centres.
    priority = 'NORMAL'

    def __init__(self, tap: str = 'embedding', num_inits: int = 10, seed: int = 0, batch_size: int = 256) -> None:
        self.tap = tap
        self.num_inits = num_inits
        self.seed = seed
        self.batch_size = batch_size

    def before_train(self, runner: Runner) -> None:
        """Find the head.

        Raises:
            TypeError: The model has no cluster head, or more than one.
            KeyError: The tap names no module.
        """
        heads = [module for module in student_of(runner).modules() if isinstance(module, ClusterHead)]
        if len(heads) != 1:
            raise TypeError(
                f'ClusterHook: expected a model with one ClusterHead but {type(student_of(runner)).__name__} has '
                f"{len(heads)}; set cluster_head=dict(type='mmkd_ext.ClusterHead', ...)"
            )
        self._head = heads[0]
        self._embedder = _Embedder(student_of(runner), self.tap)

    def after_train_epoch(self, runner: Runner) -> None:
        """Cluster, if a validation follows or this was the last epoch."""
        epoch = runner.epoch + 1
        loop = runner.train_loop
        if epoch == runner.max_epochs or (epoch >= loop.val_begin and epoch % loop.val_interval == 0):
            self._cluster(runner)

    def after_train(self, runner: Runner) -> None:
        """Take the recorder off the model."""
        self._embedder.recorder.remove()

    def _cluster(self, runner: Runner) -> None:
        model, loader = student_of(runner), runner.train_dataloader
        centre = torch.empty_like(self._head.centre)
        model.eval()
        with same_randomness(centre.device):
            pipeline = Compose(test_pipeline(runner.cfg, 'ClusterHook'))
            dataset = with_pipeline(loader.dataset, pipeline, 'ClusterHook')
            features = features_of_dataset(self._embedder, self.tap, model, dataset, loader, self.batch_size)
        model.train()
        if features is not None:
            clustering = semi_supervised_kmeans(
                unit_rows(features).numpy(),
                labels_of(loader.dataset, 'ClusterHook'),
                self._head.num_clusters,
                num_inits=self.num_inits,
                seed=self.seed,
            )
            centre.copy_(torch.from_numpy(clustering.centre_KD))
        broadcast(centre)
        self._head.centre.copy_(centre)


# --------------------------------------------------------------------------------------------------
# Superclasses for SUR, computed once before training.

Pipeline = list[Mapping[str, Any]]

_DIGEST = 'superclasses_sha256'


@HOOKS.register_module()
class SuperclassHook(Hook):
    """Clusters the teacher's features of the training data and hands the clusters to the SUR batch sampler.

    Once, before training: a frozen teacher always gives the same features. The teacher sees each image once, as the
    test-time pipeline makes it, each process computing its share. The main process clusters the features at length 1
    (:func:`mmkd_ext.functional.superclasses`) and sends the result to the others. Random numbers of the training are
    those of a run without the hook.

    The result is kept in a folder and read from there by the next run; a folder that was filled for another teacher,
    tap, data set, view, K, seed or smallest size is refused. A resumed run with other superclasses is refused, too.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019 (arXiv 1904.01802), Sec. 3.4. The
    paper's K is not known.

    Args:
        teacher: As in :class:`mmkd_ext.DistillHook`, usually the same ``dict(config=..., checkpoint=...)``.
        tap: The teacher's feature, best the one that the relation loss compares.
        num_superclasses: K. Fewer result if clusters are merged.
        pipeline: Test-time transforms; None: those of ``val_dataloader``, or else of ``test_dataloader``.
        seed: Of the initial centres; not that of the run, so that runs with different seeds share superclasses.
        min_size: A smaller cluster is dissolved into its neighbours; None: the sampler's ``samples_per_group``, so that
            none of its batches repeats a sample.
        batch_size: Images in one forward of the teacher.
        cache: Folder of the result; None: ``superclasses`` in the work_dir.

    Raises:
        TypeError: Keys of ``teacher`` are unknown or missing.

    Example:
        >>> train_dataloader = dict(
        ...     batch_sampler=dict(type='mmkd_ext.SuperclassUniformBatchSampler', samples_per_group=4), drop_last=False)
        >>> custom_hooks = [dict(
        ...     type='mmkd_ext.SuperclassHook',
        ...     teacher=dict(config='mmpretrain::resnet/resnet34_8xb16_cifar10.py', checkpoint='resnet34.pth'),
        ...     tap='neck',
        ...     num_superclasses=20)]
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        tap: str,
        num_superclasses: int,
        pipeline: Pipeline | None = None,
        seed: int = 0,
        min_size: int | None = None,
        batch_size: int = 256,
        cache: str | None = None,
    ) -> None:
        check_teacher_spec(teacher, 'SuperclassHook')
        self.teacher = teacher
        self.tap = tap
        self.num_superclasses = num_superclasses
        self.pipeline = pipeline
        self.seed = seed
        self.min_size = min_size
        self.batch_size = batch_size
        self.cache = cache

    def before_train(self, runner: Runner) -> None:
        """Find the superclasses and hand them over, before any batch is drawn.

        Raises:
            TypeError: The batch sampler takes no superclasses, or the data set has no pipeline or tells no samples.
            ValueError: The folder or the checkpoint is of other superclasses, or they cannot be computed.
            RuntimeError: Processes have different superclasses, or the tap does not fire.
            FileNotFoundError, KeyError: see :func:`mmkd_ext.models.teacher.build_teacher`.
        """
        batch_sampler = runner.train_dataloader.batch_sampler
        if not hasattr(batch_sampler, 'set_superclasses'):
            raise TypeError(
                'SuperclassHook: expected a SuperclassUniformBatchSampler in train_dataloader but got '
                f"{type(batch_sampler).__name__}; set batch_sampler=dict(type='mmkd_ext.SuperclassUniformBatchSampler')"
            )
        min_size = batch_sampler.samples_per_group if self.min_size is None else self.min_size
        student = student_of(runner)
        device = next(student.parameters()).device
        with same_randomness(device):
            pipeline = self.pipeline or test_pipeline(runner.cfg, 'SuperclassHook')
            seen = {'pipeline': pipeline}
            teacher = build_teacher(self.teacher, [self.tap], student, 'SuperclassHook', seen).frozen.to(device)
            ids = self._share(runner, self._find(runner, teacher, student, min_size))
        self._check(runner, fingerprint(ids))
        batch_sampler.set_superclasses(ids)

    def _find(self, runner: Runner, teacher: FrozenTeacher, student: nn.Module, min_size: int) -> np.ndarray | None:
        """Read the superclasses, or compute them; None in all processes but the main one."""
        pipeline = self.pipeline or test_pipeline(runner.cfg, 'SuperclassHook')
        file = Path(self.cache or Path(runner.work_dir, 'superclasses')) / 'superclasses.json'
        identity, ids = {}, None
        if is_main_process():
            identity = {
                'teacher (weights or architecture)': model_fingerprint(teacher.model),
                'tap': self.tap,
                'data set': dataset_fingerprint(runner.train_dataloader.dataset, 'SuperclassHook'),
                'view (pipeline, preprocessing or normalization)': view_fingerprint(
                    [dict(transform) for transform in pipeline], student, teacher
                ),
                'number of superclasses': self.num_superclasses,
                'seed': self.seed,
                'min_size': min_size,
            }
            ids = _read(file, identity)
        is_known = [ids is not None]
        broadcast_object_list(is_known)
        if is_known[0]:
            runner.logger.info(f'SuperclassHook: superclasses of {file}')
            return ids
        ids = self._compute(runner, teacher, student, pipeline, min_size)
        if ids is not None:
            _write(file, identity, ids)
        return ids

    def _compute(
        self, runner: Runner, teacher: FrozenTeacher, student: nn.Module, pipeline: Pipeline, min_size: int
    ) -> np.ndarray | None:
        began = time.perf_counter()
        loader = runner.train_dataloader
        dataset = with_pipeline(loader.dataset, Compose(pipeline), 'SuperclassHook')
        features = features_of_dataset(teacher, self.tap, student, dataset, loader, self.batch_size)
        if features is None:
            return None
        computed = time.perf_counter()
        ids = superclasses(features.numpy(), self.num_superclasses, seed=self.seed, min_size=min_size)
        clustered = time.perf_counter()
        sizes = np.bincount(ids)
        runner.logger.info(
            f'SuperclassHook: {len(sizes)} superclasses of {sizes.min()} to {sizes.max()} samples, from features '
            f'{tuple(features.shape)}; {computed - began:.2f} s for the features, {clustered - computed:.2f} s for '
            'k-means'
        )
        return ids

    def _share(self, runner: Runner, ids: np.ndarray | None) -> np.ndarray:
        """Send the superclasses to all processes.

        Raises:
            RuntimeError: If not all have the same afterwards.
        """
        size = len(runner.train_dataloader.dataset)
        shared = torch.empty(size, dtype=torch.int64) if ids is None else torch.from_numpy(ids)
        broadcast(shared)
        digests = all_gather_object(fingerprint(shared))
        if len(set(digests)) > 1:
            raise RuntimeError(
                f'SuperclassHook: expected the same superclasses in all processes but got {len(set(digests))} '
                'different ones; check the network and the libraries of the nodes'
            )
        return shared.numpy()

    def _check(self, runner: Runner, digest: str) -> None:
        expected = runner.message_hub.get_info(_DIGEST)
        if expected not in (None, digest):
            raise ValueError(
                f'SuperclassHook: expected the superclasses that the checkpoint was trained with (SHA-256 {expected}) '
                f'but got others ({digest}), and so another order of batches; restore their folder, or start anew'
            )
        runner.message_hub.update_info(_DIGEST, digest)


def _read(file: Path, identity: Mapping[str, Any]) -> np.ndarray | None:
    """Return the superclasses of a file, None if there is no file.

    Raises:
        ValueError: If they are of something else, or the file is damaged.
    """
    if not file.is_file():
        return None
    remedy = f'delete {file.parent}, or set another folder by cache='
    try:
        content = json.loads(file.read_text())
        stored, ids = content['identity'], np.array(content['superclasses'], dtype=np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'SuperclassHook: expected superclasses in {file} but it is damaged; {remedy}') from error
    for name, expected in identity.items():
        if stored.get(name) != expected:
            raise ValueError(
                f'SuperclassHook: expected superclasses of this run but those in {file} are of another {name} '
                f'({stored.get(name)}, now {expected}); {remedy}'
            )
    return ids


def _write(file: Path, identity: Mapping[str, Any], ids: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({'identity': identity, 'superclasses': ids.tolist()}))
