"""A teacher that computes the features of a sample once and reads them from disk from then on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkd_ext.distill.feature_store import FeatureStore, Layout
from mmkd_ext.distill.teacher import FrozenTeacher

__all__ = ['CachedTeacher']

_TOLERANCE = {'float64': 5e-3, 'float32': 5e-3, 'bfloat16': 2e-2, 'float16': 2e-2}
"""Largest difference between a stored feature and a new one, relative to the largest absolute value of the new ones."""


class CachedTeacher:
    """Takes the place of a :class:`FrozenTeacher`; its features are those of the first time a sample was seen.

    A batch whose samples are all in the store costs no forward; otherwise the teacher runs on the whole batch, and
    what is missing is stored. Returned is always what the store has, so a sample has the same features at every time
    and in every process. They may differ in the last bits from those that the teacher would compute in the batch at
    hand, because sums are taken in another order in batches of another size.

    The first batch that is in the store, and about one in an epoch from then on, is computed all the same and compared,
    within a tolerance that is generous to rounding (5e-3 of the largest value; 2e-2 in half precision) and far below
    the difference between two images: this finds a view that is random or changes after all, and samples that have
    changed under their names.

    Samples are known by ``sample_idx`` in the metainfo of the data samples; it must be the same for the same image.

    Args:
        teacher: Computes what is missing. Each feature has one row per sample.
        store: Opened for the identity of this teacher, data set and view.
    """

    def __init__(self, teacher: FrozenTeacher, store: FeatureStore) -> None:
        self.teacher = teacher
        self.store = store
        self._num_unchecked = store.num_samples  # since the last check; at a whole data set, the next one is due

    def __deepcopy__(self, memo: dict[int, Any]) -> 'CachedTeacher':
        """Return the teacher itself: copies of its student (EMA) share it."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Look anything else up in the teacher."""
        if name == 'teacher':  # not there yet while an object is unpickled
            raise AttributeError(name)
        return getattr(self.teacher, name)

    @property
    def model(self) -> nn.Module:
        """The frozen model."""
        return self.teacher.model

    def to(self, device: torch.device | str) -> 'CachedTeacher':
        """Move the model."""
        self.teacher.to(device)
        return self

    def features(
        self, inputs: Any, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> dict[str, torch.Tensor]:
        """Return the features of a batch, from the store where it has them.

        Args:
            inputs: The student's batch: a tensor (B, ...), of the same size in all batches.
            data_samples: The B samples.
            mode: As in the student's forward.

        Raises:
            RuntimeError: Samples have no ``sample_idx``, a feature has no row per sample, or a stored feature differs
                from the teacher's.
            ValueError: The store has features of another shape, dtype or precision.
        """
        samples, shape = _sample_indices(data_samples, self.store.num_samples), _input_shape(inputs)
        rows, is_stored = self.store.read(samples)
        device = next(self.model.parameters()).device
        self._num_unchecked += len(samples)
        if not is_stored.all() or self._num_unchecked >= self.store.num_samples:
            fresh = self.teacher.features(inputs, data_samples=data_samples, mode=mode)
            _check_rows(fresh, len(samples))
            layout = Layout.of(fresh, shape, _precision(device))
            self.store.set_layout(layout)
            if is_stored.any():
                self._check(fresh, rows, is_stored, samples)
            rows = self.store.write(samples, layout.pack(fresh))
        elif shape != self.store.layout.input_shape:
            raise RuntimeError(
                f'teacher cache: expected inputs of shape {self.store.layout.input_shape} but got {shape}: images that '
                'are padded to the largest of their batch have no view of their own; resize them to one size, or '
                'train without cache'
            )
        return {tap: feature.to(device) for tap, feature in self.store.layout.unpack(rows).items()}

    def _check(
        self, fresh: Mapping[str, torch.Tensor], rows: np.ndarray, is_stored: np.ndarray, samples: Sequence[int]
    ) -> None:
        stored = self.store.layout.unpack(rows[is_stored])
        for tap, feature in fresh.items():
            expected = feature.detach().cpu()[torch.from_numpy(is_stored)].double()
            difference = (stored[tap].double() - expected).abs().reshape(len(expected), -1).amax(1)
            limit = _TOLERANCE[str(feature.dtype).removeprefix('torch.')] * expected.abs().max()
            if not (difference <= limit).all():  # NaN differs from everything
                worst = np.array(samples)[is_stored][difference.nan_to_num(torch.inf).argmax()]
                raise RuntimeError(
                    f'teacher cache: expected the stored features of {tap!r} within {limit:.2g} of new ones but sample '
                    f'{worst} differs by {difference.max():.2g}; its image has changed, or the view is random after '
                    f'all: delete {self.store.folder}, and train without cache if that does not help'
                )
        self._num_unchecked = 0


def _input_shape(inputs: Any) -> tuple[int, ...]:
    """Return the shape of one sample."""
    if not isinstance(inputs, torch.Tensor):
        raise RuntimeError(
            f'teacher cache: expected a tensor as batch but got {type(inputs).__name__}; train several views without '
            'cache'
        )
    return tuple(inputs.shape[1:])


def _sample_indices(data_samples: Sequence[Any] | None, num_samples: int) -> list[int]:
    indices = [getattr(sample, 'sample_idx', None) for sample in data_samples or ()]
    if not indices or None in indices:
        raise RuntimeError(
            "teacher cache: expected data samples with a sample_idx but the batch has none; add 'sample_idx' to the "
            'meta_keys of the last transform (PackInputs) of the training pipeline'
        )
    if not all(0 <= index < num_samples for index in indices):
        raise RuntimeError(
            f'teacher cache: expected sample_idx in [0, {num_samples - 1}] but got {min(indices)} to {max(indices)}; '
            'the batch is not of the data set that the cache was opened for'
        )
    return indices


def _check_rows(features: Mapping[str, torch.Tensor], num_samples: int) -> None:
    for tap, feature in features.items():
        if feature.ndim == 0 or len(feature) != num_samples:
            raise RuntimeError(
                f'teacher cache: expected one row per sample at tap {tap!r}, {num_samples}, but got shape '
                f'{tuple(feature.shape)}; train without cache, or tap another module'
            )
        if str(feature.dtype).removeprefix('torch.') not in _TOLERANCE:
            raise RuntimeError(f'teacher cache: expected floats at tap {tap!r} but got {feature.dtype}')


def _precision(device: torch.device) -> str:
    if not torch.is_autocast_enabled(device.type):
        return device.type
    return f'{device.type}, autocast {str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")}'
