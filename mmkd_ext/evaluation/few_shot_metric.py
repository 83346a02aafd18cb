"""The metric of few-shot learning: accuracy over fixed episodes, with a confidence interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from scipy import stats
from torch import Tensor

from mmkd_ext.evaluation.retrieval_metric import EmbeddedSample, read_embedding
from mmkd_ext.functional.prototypical import draw_episodes, nearest_prototype
from mmkd_ext.registry import METRICS

_EPISODES_AT_ONCE = 50


@METRICS.register_module()
class FewShotMetric(BaseMetric):
    """Accuracy of nearest prototypes, in percent, with the half-width of its 95 % confidence interval.

    Every image is embedded once, and all episodes use the embeddings: the same numbers as an embedding per episode,
    since in evaluation mode no image depends on another. The episodes follow from the seed and the data set alone, so
    different networks, and any number of processes, meet the same ones. For each task the keys are
    ``<N>way_<K>shot`` and ``<N>way_<K>shot_ci95``.

    Source: protocol of Snell et al., arXiv 1703.05175: mean over episodes.

    Args:
        tasks: Pairs (N ways, K shots).
        num_queries: Queries of each class in an episode.
        num_episodes: Episodes of each task; 1000 is usual for Omniglot, 600 for miniImageNet.
        seed: Seed of the episodes.
        collect_device: Where results are gathered, ``'cpu'`` (files) or ``'gpu'`` (the process group).
        prefix: Prepended to every key when given.
        collect_dir: Folder for gathering with ``'cpu'``.

    Raises:
        TypeError: If ``tasks`` are no pairs of integers.
        ValueError: If a number is out of range, there are no samples, an embedding is no vector or not finite, or the
            data has too few classes, or too few images of one.
        KeyError: If samples lack a field.
    """

    default_prefix = ''  # not None: mmengine warns about None

    def __init__(
        self,
        tasks: Sequence[tuple[int, int]] = ((5, 1), (5, 5), (20, 1), (20, 5)),
        num_queries: int = 15,
        num_episodes: int = 1000,
        seed: int = 0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        _check_pairs(tasks)
        if num_episodes < 2 or num_queries < 1 or not tasks or min(map(min, tasks)) < 1:
            raise ValueError(
                'FewShotMetric: expected at least one task of ways and shots >= 1, one query and two episodes but got '
                f'tasks={tasks}, num_queries={num_queries}, num_episodes={num_episodes}; change these'
            )
        self.tasks = tasks
        self.num_queries, self.num_episodes = num_queries, num_episodes
        self.seed = seed

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep embedding and label of each sample.

        Args:
            data_batch: Not used.
            data_samples: Predicted samples as dicts (:func:`read_embedding`).
        """
        self.results += [read_embedding(sample, 'FewShotMetric') for sample in data_samples]

    def compute_metrics(self, results: list[EmbeddedSample]) -> dict[str, float]:
        """Play the episodes with the embeddings of all processes.

        Args:
            results: One entry per sample of the data set, in its order.

        Returns:
            dict: Numbers in percent.
        """
        if not results:
            raise ValueError('FewShotMetric: expected samples but got none; check the evaluation data set')
        embedding_BD = torch.from_numpy(np.stack([sample.embedding for sample in results]))
        if not embedding_BD.isfinite().all():
            raise ValueError(
                'FewShotMetric: expected finite embeddings but got NaN or infinite values; check the model'
            )
        labels_B = np.array([sample.label for sample in results])
        metrics = {}
        for num_ways, num_shots in self.tasks:
            generator = np.random.default_rng(self.seed)
            size = num_shots + self.num_queries
            episodes = draw_episodes(labels_B, num_ways, size, self.num_episodes, generator)
            mean, half_width = mean_and_interval(_accuracies(embedding_BD, episodes, num_shots))
            metrics[f'{num_ways}way_{num_shots}shot'] = 100 * mean
            metrics[f'{num_ways}way_{num_shots}shot_ci95'] = 100 * half_width
        return metrics


def mean_and_interval(accuracies: np.ndarray) -> tuple[float, float]:
    """Return the mean over episodes and the half-width of its 95 % confidence interval, 1.96 standard errors.

    Args:
        accuracies: (E,), at least two.
    """
    return float(accuracies.mean()), float(1.96 * stats.sem(accuracies))


def _check_pairs(tasks: Sequence[tuple[int, int]]) -> None:
    is_pairs = isinstance(tasks, Sequence) and all(isinstance(task, Sequence) and len(task) == 2 for task in tasks)
    if not is_pairs or not all(isinstance(number, int) for task in tasks for number in task):
        raise TypeError(
            f'FewShotMetric: expected tasks to be pairs of integers (ways, shots) but got {tasks!r}; write for example '
            '((5, 1), (5, 5))'
        )


def _accuracies(embedding_BD: Tensor, episodes_EWS: np.ndarray, num_shots: int) -> np.ndarray:
    """Share of right queries in each episode, (E,)."""
    accuracies = []
    for part in np.array_split(episodes_EWS, -(-len(episodes_EWS) // _EPISODES_AT_ONCE)):
        samples = embedding_BD[torch.from_numpy(part)]
        predicted = nearest_prototype(samples[:, :, :num_shots], samples[:, :, num_shots:].flatten(1, 2))
        truth = torch.arange(part.shape[1]).repeat_interleave(part.shape[2] - num_shots)
        accuracies.append((predicted == truth).double().mean(dim=1))
    return torch.cat(accuracies).numpy()
