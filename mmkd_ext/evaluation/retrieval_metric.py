"""The metric of metric learning: Recall@K, MAP@R and R-precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmkd_ext.ops.arguments import unit_rows
from mmkd_ext.registry import METRICS
from mmkd_ext.scores.retrieval import check_ks, retrieval_scores

_QUERY, _GALLERY = 'query', 'gallery'


@dataclass(frozen=True, slots=True)
class EmbeddedSample:
    """What evaluation reads from one embedded sample.

    Attributes:
        embedding: Shape (D,), float32 or float64.
        label: True class.
        split: ``'query'``, ``'gallery'``, or anything else where each sample is both.
    """

    embedding: np.ndarray
    label: int
    split: str | None


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """How well an embedding retrieves images of the same class, in percent: ``recall@<K>``, ``map@r``, ``r_precision``.

    Every image is a query and is searched for among all others, as for CUB, Cars 196 and Stanford Online Products. Of
    data whose samples say ``split_name`` ``'query'`` or ``'gallery'``, as those of In-Shop Clothes may, the first are
    searched for among the second. A query without any image of its class counts as a miss, as in RKD's code.

    Samples of all processes are gathered first and repetitions of the distributed sampler left out, so the numbers do
    not depend on how many processes evaluate. :mod:`mmkd_ext.scores.retrieval` defines them.

    Args:
        topk: The values of K.
        normalize: Whether embeddings are scaled to length 1 first; cosine similarity then decides.
        collect_device: Where results are gathered, ``'cpu'`` (files) or ``'gpu'`` (the process group).
        prefix: Prepended to every key, ``'retrieval'`` if None.
        collect_dir: Folder for gathering with ``'cpu'``.

    Raises:
        TypeError: If ``topk`` is no sequence of integers.
        ValueError: If ``topk`` is empty or not positive, there are no samples, or there are queries without a gallery.
        KeyError: If samples lack a field.

    Example:
        >>> val_evaluator = dict(type='mmkd_ext.RetrievalMetric', topk=(1, 2, 4, 8))
        >>> default_hooks = dict(checkpoint=dict(save_best='retrieval/recall@1', rule='greater'))
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        topk: Sequence[int] = (1, 2, 4, 8),
        normalize: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        check_ks('RetrievalMetric', topk=topk)
        self.topk = tuple(topk)
        self.normalize = normalize

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep embedding and label of each sample.

        Args:
            data_batch: Not used.
            data_samples: Predicted samples as dicts (:func:`read_embedding`).
        """
        self.results += [read_embedding(sample, 'RetrievalMetric') for sample in data_samples]

    def compute_metrics(self, results: list[EmbeddedSample]) -> dict[str, float]:
        """Score the gathered samples of all processes.

        Args:
            results: One entry per sample of the data set.

        Returns:
            dict: Numbers in percent.
        """
        if not results:
            raise ValueError('RetrievalMetric: expected samples but got none; check the evaluation data set')
        sides = [[sample for sample in results if sample.split == side] for side in (_QUERY, _GALLERY)]
        if not any(sides):
            scores = retrieval_scores(*self._stack(results), self.topk)
        elif all(sides) and sum(map(len, sides)) == len(results):
            queries, gallery = map(self._stack, sides)
            scores = retrieval_scores(*queries, self.topk, *gallery)
        else:
            found = sorted({str(sample.split) for sample in results})
            raise ValueError(
                f"RetrievalMetric: expected split_name 'query' and 'gallery', or neither, but got {found}; "
                'evaluate both in one data set'
            )
        return {name: 100 * score for name, score in scores.items()}

    def _stack(self, samples: Sequence[EmbeddedSample]) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = torch.from_numpy(np.stack([sample.embedding for sample in samples]))
        labels = torch.tensor([sample.label for sample in samples])
        return (unit_rows(embeddings) if self.normalize else embeddings), labels


def check_fields(caller: str, sample: Mapping[str, Any], **remedies: str) -> None:
    """Refuse a predicted sample that lacks a field.

    Args:
        caller: Name of the caller in messages.
        sample: Its fields.
        **remedies: Field -> what to do where it is missing.

    Raises:
        KeyError: A field is missing.
    """
    for key, remedy in remedies.items():
        if key not in sample:
            raise KeyError(f'{caller}: expected predicted samples with {key!r} but got {sorted(sample)}; {remedy}')


def read_embedding(sample: Mapping[str, Any], caller: str) -> EmbeddedSample:
    """Reduce a predicted data sample to what retrieval needs.

    Args:
        sample: ``DataSample.to_dict()`` after prediction: ``embedding`` (D,) of any floating dtype, ``gt_label`` (1,)
            and perhaps ``split_name``.
        caller: Name of the caller in messages.

    Returns:
        EmbeddedSample: On the CPU, in at least float32.

    Raises:
        KeyError: A field is missing.
        ValueError: The embedding is not a vector.
    """
    check_fields(caller, sample, embedding='evaluate a model that embeds', gt_label='evaluate on data that has labels')
    embedding = torch.as_tensor(sample['embedding']).detach().cpu()
    if embedding.ndim != 1:
        raise ValueError(
            f'{caller}: expected an embedding of shape (D,) but got {tuple(embedding.shape)}; pool maps to one vector'
        )
    embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
    # A copy: the rows of a batch are views that would keep all of it, here and on the way to other processes.
    return EmbeddedSample(embedding.numpy().copy(), int(sample['gt_label']), sample.get('split_name'))
