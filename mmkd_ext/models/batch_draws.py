"""The random numbers of the images of a batch.

Shape suffixes: B images, N numbers per image.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from mmkd_ext.functional.counter_random import counter_keys, counter_uniform

__all__ = ['BatchDraws']


class BatchDraws:
    """Draws for each image of a batch from a stream of its own, on the host.

    What an image gets depends on its key and on how many draws came before in the pipeline, and neither on the other
    images nor on what was drawn for them.

    Args:
        keys_B: (B,) of :func:`~mmkd_ext.functional.counter_random.counter_keys`.
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
