"""Semi-supervised k-means over the training images, for models that are not classifiers themselves."""

from typing import Any

import torch
from mmengine.dataset import Compose
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmkd_ext.clustering.kmeans import semi_supervised_kmeans
from mmkd_ext.distill import Recorder, same_randomness
from mmkd_ext.engine.dataset_features import features_of_dataset, test_pipeline, with_pipeline
from mmkd_ext.engine.runner import student_of
from mmkd_ext.heads import ClusterHead
from mmkd_ext.ops.distances import unit_rows
from mmkd_ext.registry import HOOKS
from mmkd_ext.samplers.planned import labels_of

__all__ = ['ClusterHook']


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
