"""The random numbers that a training batch of the Runner is augmented with."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.logging import MessageHub

from mmkd_ext.functional.counter_random import counter_keys
from mmkd_ext.models.batch_draws import BatchDraws

__all__ = ['sample_draws']


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


def _repetitions(indices: Sequence[int]) -> np.ndarray:
    """How often each index came before, (B,) int64."""
    seen: Counter[int] = Counter()
    repetitions = []
    for index in indices:
        repetitions.append(seen[index])
        seen[index] += 1
    return np.array(repetitions, dtype=np.int64)
