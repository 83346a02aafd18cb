"""The random numbers of the images of a batch.

Shape suffixes: B images, N numbers per image.
"""

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.logging import MessageHub

from mmkd_ext.ops.random import counter_keys, counter_uniform


class BatchDraws:
    """Draws for each image of a batch from a stream of its own, on the host.

    What an image gets depends on its key and on how many draws came before in the pipeline, and neither on the other
    images nor on what was drawn for them.

    Args:
        keys_B: (B,) of :func:`~mmkd_ext.ops.random.counter_keys`.
        streams: Numbers the draws; shared with the draws of a part of the images, which do not repeat a number.
    """

    def __init__(self, keys_B: np.ndarray, streams: Iterator[int] | None = None) -> None:
        self.keys_B = keys_B
        self._streams = itertools.count() if streams is None else streams

    def __len__(self) -> int:
        return len(self.keys_B)

    def uniform(self, num: int) -> np.ndarray:
        """Return the next numbers of each image, (B, N), uniform in [0, 1), float64.

        Args:
            num: N.
        """
        return counter_uniform(self.keys_B, next(self._streams), num)

    def select(self, chosen: np.ndarray) -> 'BatchDraws':
        """Return the draws of some images.

        Args:
            chosen: Their indices.
        """
        return BatchDraws(self.keys_B[chosen], self._streams)

    def views(self, first: int, num: int) -> 'BatchDraws':
        """Return the draws of several views of each image, view by view.

        Args:
            first: Number of the first of these views.
            num: Number of views.
        """
        return BatchDraws(np.concatenate([counter_keys(self.keys_B, view) for view in range(first, first + num)]))


# --------------------------------------------------------------------------------------------------
# The random numbers that a training batch of the Runner is augmented with.


def sample_draws(data_samples: Sequence[Any] | None, num_images: int) -> BatchDraws:
    """Return draws that follow from the run's seed, the iteration, and which sample an image is.

    Seed and iteration are those that mmengine's RuntimeInfoHook, one of its default hooks, leaves in the message hub.
    A sample that is several times in the batch draws anew each time.

    Args:
        data_samples: B samples with ``sample_idx`` in their metainfo.
        num_images: B.

    Raises:
        RuntimeError: Something of this is missing.
    """
    indices = [getattr(sample, 'sample_idx', None) for sample in data_samples or ()]
    if len(indices) != num_images or None in indices:
        raise RuntimeError(
            f'batch_augments: expected {num_images} data samples with a sample_idx but got {len(indices)}, '
            f"{indices.count(None)} without; add 'sample_idx' to the meta_keys of PackInputs"
        )
    hub = MessageHub.get_current_instance()
    seed, iteration = (hub.get_info(key) if key in hub.runtime_info else None for key in ('seed', 'iter'))
    if seed is None or iteration is None:
        raise RuntimeError(
            f'batch_augments: expected the seed and the iteration of a Runner but got {seed} and {iteration}; train '
            "with mmengine's Runner and its RuntimeInfoHook, or update both in MessageHub.get_current_instance()"
        )
    return BatchDraws(counter_keys(seed, iteration, np.array(indices, dtype=np.int64), _repetitions(indices)))


def _repetitions(indices: Sequence[Hashable]) -> np.ndarray:
    """How often each index came before, (B,) int64."""
    seen: Counter[Hashable] = Counter()
    repetitions = []
    for index in indices:
        repetitions.append(seen[index])
        seen[index] += 1
    return np.array(repetitions, dtype=np.int64)
