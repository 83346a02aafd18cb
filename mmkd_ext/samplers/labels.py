"""Which samples of a data set belong together."""

from typing import Any

import numpy as np

__all__ = ['group_members', 'labels_of']


def labels_of(dataset: Any, who: str) -> np.ndarray:
    """Return the class of each sample of a data set.

    Args:
        dataset: It has ``get_gt_labels()``, as ours and mmpretrain's, or ``get_cat_ids(index)`` with one class, as
            wrappers of mmengine; the latter is called for each sample.
        who: Name of the caller in messages.

    Returns:
        (N,) int64, negative for samples without label.

    Raises:
        TypeError: If the data set tells no labels (``ConcatDataset``: those of its parts need not mean the same).
        ValueError: If a sample has several classes or none, or there are more or fewer labels than samples.
    """
    if hasattr(dataset, 'get_gt_labels'):
        # mmengine cuts a data set for num_batch_per_epoch, but not its labels.
        labels = np.asarray(dataset.get_gt_labels())[: len(dataset)]
    elif hasattr(dataset, 'get_cat_ids'):
        labels = np.array([_only(dataset.get_cat_ids(index), index, who) for index in range(len(dataset))])
    else:
        raise TypeError(
            f'{who}: expected a data set with get_gt_labels() or get_cat_ids() but got {type(dataset).__name__}; '
            'sample from one classification data set, or give yours a method get_gt_labels() that returns one integer '
            'per sample'
        )
    if labels.shape != (len(dataset),) or labels.dtype.kind not in 'iu':
        raise ValueError(
            f'{who}: expected one integer label for each of the {len(dataset)} samples but {type(dataset).__name__} '
            f'has {labels.dtype} of shape {labels.shape}; check its annotations'
        )
    return labels.astype(np.int64)


def _only(classes: Any, index: int, who: str) -> int:
    if len(classes) != 1:
        raise ValueError(
            f'{who}: expected one class per sample but sample {index} has {list(classes)}; multi-label data has no '
            'groups to sample from'
        )
    return classes[0]


def group_members(ids_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples sorted by group, and the sizes of the groups that have any.

    Args:
        ids_N: Group of each sample, (N,) integers; negative: in no group.

    Returns:
        Indices of samples, group after group, (n,); sizes (G,) > 0, sum n.
    """
    order = np.argsort(ids_N, kind='stable')
    members = order[np.count_nonzero(ids_N < 0) :]
    return members, np.unique(ids_N[members], return_counts=True)[1]
