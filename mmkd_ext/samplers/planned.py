"""What our batch samplers stand on: draws without replacement, classes of a data set, batches by seed, epoch, rank.

Suffixes: N samples, G groups, R requests in order of time.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import Sampler

__all__ = ['PlannedBatchSampler', 'draw_distinct', 'draw_in_cycles', 'group_members', 'labels_of']


def draw_in_cycles(
    size_G: np.ndarray, group_R: np.ndarray, count_R: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Let every group deal out its members like a deck of cards, request after request.

    A deck is dealt to the end, then shuffled anew; so the members of a group are drawn equally often, up to one. A
    request that takes the last cards of one deck and the first ones of the next gets no card twice. A request for more
    members than the group has gets decks of its own, each member equally often, up to one.

    The cost is one sort of all decks plus one step of Python per deck of the group that is dealt most often.

    Args:
        size_G: Number of members of each group.
        group_R: Group that each request goes to.
        count_R: Number of members that each request wants.
        generator: Source of all chance.

    Returns:
        Positions of members within their group, (sum of count_R,) int32, in the order of the requests.
    """
    dealt_R = np.where(count_R > size_G[group_R], -(-count_R // size_G[group_R]) * size_G[group_R], count_R)
    by_group = np.argsort(group_R, kind='stable')
    end_R = np.empty(len(group_R), dtype=np.int64)  # where a request ends in the line of all cards, group after group
    end_R[by_group] = np.cumsum(dealt_R[by_group])
    cards = _deal(size_G, group_R[by_group], end_R[by_group], generator)
    return cards[_ranges(end_R - dealt_R, count_R)]


def draw_distinct(size_G: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw different members of each group at random.

    Args:
        size_G: Number of members of each group.
        count: How many to draw.
        generator: Source of all chance.

    Returns:
        Positions of members within their group, (G, count) int64; -1 at the end of the row of a smaller group.
    """
    drawn = np.empty((len(size_G), count), dtype=np.int64)
    for column in range(count):
        # The n-th of the members that are left: every smaller or equal one that is taken moves it up by one.
        member = (generator.random(len(size_G)) * (size_G - column)).astype(np.int64)
        for taken in np.sort(drawn[:, :column]).T:
            member += member >= taken
        drawn[:, column] = member
    drawn[np.arange(count) >= size_G[:, None]] = -1
    return drawn


def _deal(size_G: np.ndarray, group_R: np.ndarray, end_R: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the line of all cards; requests are sorted by group and end at `end_R` in it."""
    start_R = np.concatenate([[0], end_R[:-1]])
    total_G = np.bincount(group_R, end_R - start_R, len(size_G)).astype(np.int64)
    start_G, first_G = np.cumsum(total_G) - total_G, np.cumsum(size_G) - size_G
    deck = _ranges(np.zeros_like(size_G), size_G)
    line = np.empty(total_G.sum(), dtype=np.int32)
    num_dealt_G = np.zeros_like(size_G)
    while (active := np.flatnonzero(num_dealt_G < total_G)).size:
        size, seam = size_G[active], start_G[active] + num_dealt_G[active]
        request = np.searchsorted(end_R, seam, side='right')  # the one that gets the first card of the new deck
        num_before, num_after = seam - start_R[request], end_R[request] - seam
        where = _ranges(first_G[active], size)
        deck[where] = deck[where][_shuffle(size, num_before, num_after, generator)]
        num_wanted = np.minimum(size, total_G[active] - num_dealt_G[active])
        line[_ranges(seam, num_wanted)] = deck[_ranges(first_G[active], num_wanted)]
        num_dealt_G[active] += num_wanted
    return line


def _shuffle(
    size_G: np.ndarray, num_before_G: np.ndarray, num_after_G: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return new orders of decks that lie one after the other.

    None of the last ``num_before`` cards of the old order is among the first ``num_after`` ones of the new order if
    that can be.
    """
    deck = np.repeat(np.arange(len(size_G), dtype=np.float32), size_G)
    is_open = (num_before_G > 0) & (num_before_G < size_G)
    if not is_open.any():
        return np.argsort(deck + generator.random(len(deck)))
    place = _ranges(np.zeros_like(size_G), size_G)
    is_stale = place >= np.repeat(np.where(is_open, size_G - num_before_G, size_G), size_G)
    fresh_first = np.argsort(deck + 0.5 * (is_stale + generator.random(len(deck))))
    is_later = place >= np.repeat(np.where(is_open, num_after_G, 0), size_G)
    return fresh_first[np.argsort(deck + 0.5 * (is_later + generator.random(len(deck))))]


def _ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return ``start[0], start[0] + 1, ...``, ``length[0]`` numbers, then the same for the others, int32."""
    skipped = start - (np.cumsum(length) - length)
    return np.arange(length.sum(), dtype=np.int32) + np.repeat(skipped.astype(np.int32), length)


# --------------------------------------------------------------------------------------------------
# Which samples of a data set belong together.


def labels_of(dataset: Any, caller: str) -> np.ndarray:
    """Return the class of each sample of a data set.

    Args:
        dataset: It has ``get_gt_labels()``, as ours and mmpretrain's, or ``get_cat_ids(index)`` with one class, which
            is called for each sample; or it repeats samples of one that has, as ``RepeatDataset`` and
            ``ClassBalancedDataset`` of mmengine.
        caller: Name of the caller in messages.

    Returns:
        (N,) int64, negative for samples without label.

    Raises:
        TypeError: If the data set tells no labels (``ConcatDataset``: those of its parts need not mean the same).
        ValueError: If a sample has several classes or none, or there are more or fewer labels than samples.
    """
    if hasattr(dataset, '_get_ori_dataset_idx') and hasattr(dataset, 'dataset'):
        length = len(dataset)  # completes the data set first
        places = np.array([dataset._get_ori_dataset_idx(index) for index in range(length)], np.int64)
        return labels_of(dataset.dataset, caller)[places]
    try:
        labels = _told_labels(dataset, caller)
    except (AttributeError, NotImplementedError) as error:
        # Base classes have a method that asks for another one; wrappers pass on what the inner data set lacks.
        raise TypeError(
            f'{caller}: expected a data set with get_gt_labels() or get_cat_ids() but got {type(dataset).__name__}, '
            'which tells no class of a sample; sample from one classification data set, or give yours a method '
            'get_gt_labels() that returns one integer per sample'
        ) from error
    if labels.shape != (len(dataset),) or labels.dtype.kind not in 'iu':
        raise ValueError(
            f'{caller}: expected one integer label for each of the {len(dataset)} samples but {type(dataset).__name__} '
            f'has {labels.dtype} of shape {labels.shape}; check its annotations'
        )
    return labels.astype(np.int64)


def _told_labels(dataset: Any, caller: str) -> np.ndarray:
    """Return what the methods of a data set say.

    Raises:
        AttributeError: It has none of them.
        NotImplementedError: It has one only by name.
        ValueError: A sample has several classes.
    """
    if not hasattr(dataset, 'get_gt_labels'):
        return np.array([_only(dataset.get_cat_ids(index), index, caller) for index in range(len(dataset))])
    try:
        told = dataset.get_gt_labels()
    except ValueError:  # NumPy's, of lists of several lengths
        return np.array([_only(dataset.get_cat_ids(index), index, caller) for index in range(len(dataset))])
    if not isinstance(told, np.ndarray):
        # mmengine cuts a data set for num_batch_per_epoch, but not its labels.
        told = [_only(label, index, caller) if np.ndim(label) else label for index, label in enumerate(told)]
    labels = np.asarray(told)[: len(dataset)]
    if labels.dtype == object:
        labels = np.array([_only(np.atleast_1d(label), index, caller) for index, label in enumerate(labels)])
    return labels


def _only(classes: Any, index: int, caller: str) -> int:
    if len(classes) != 1:
        raise ValueError(
            f'{caller}: expected one class per sample but sample {index} has {list(classes)}; multi-label data has no '
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


# --------------------------------------------------------------------------------------------------
# The base of our batch samplers.


class PlannedBatchSampler(Sampler[list[int]]):
    """Base of the batch samplers that make all batches of an epoch at once, as one array.

    The inner sampler is never iterated. It stands for what mmengine gives to samplers: data set, seed, rank, world size
    and the epoch, which mmengine's ``DistSamplerSeedHook`` sets on it. Over an ``InfiniteSampler``, one epoch follows
    the other without end.

    Nothing is kept from batch to batch: ``plan(epoch)[j]`` is batch j without those before it, and an iterator passes
    over a batch that nobody wants (``islice(batch_sampler, j, None)``, to go on with an interrupted epoch) in about two
    microseconds.

    Args:
        sampler: ``DefaultSampler`` or ``InfiniteSampler`` of mmengine.
        batch_size: Samples per process and step.

    Raises:
        TypeError: If the sampler is another one.
    """

    def __init__(self, sampler: Sampler, batch_size: int) -> None:
        if not isinstance(sampler, DefaultSampler | InfiniteSampler):
            raise TypeError(
                f'{type(self).__name__}: expected a DefaultSampler or an InfiniteSampler of mmengine but got '
                f"{type(sampler).__name__}; set sampler=dict(type='DefaultSampler', shuffle=True)"
            )
        self.sampler: DefaultSampler | InfiniteSampler = sampler
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches per process and epoch."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own __len__(); define it')

    def plan(self, epoch: int) -> np.ndarray:
        """Return all batches of this process in one epoch, (len(self), batch_size) indices into the data set."""
        raise NotImplementedError(f'{type(self).__name__}: expected its own plan(); define it')

    def __iter__(self) -> Iterator[list[int]]:
        epochs = [self.sampler.epoch] if hasattr(self.sampler, 'epoch') else itertools.count()
        for epoch in epochs:
            for batch in self.plan(epoch):
                yield batch.tolist()
