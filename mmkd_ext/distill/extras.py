"""What a loss may ask for beside the tensors of student and teacher: by an argument of that name."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ['Extras']

_OF_SAMPLES = ('labels', 'data_samples', 'sample_ids', 'student_logits', 'teacher_logits')
"""Those with one row, or item, per sample."""
_NAMES = (*_OF_SAMPLES, 'epoch', 'iteration')
_MISSING = {
    'labels': 'data samples with a gt_label each, for the labels that its loss takes, but the batch has none; use a '
    'loss without labels',
    'data_samples': 'data samples but the batch has none; use a loss without them',
    'sample_ids': 'data samples with a sample_idx each, for the sample_ids that its loss takes, but the batch has '
    "none; add 'sample_idx' to the meta_keys of the last transform, PackInputs(meta_keys=(..., 'sample_idx'))",
}


@dataclass(frozen=True)
class Extras:
    """The extras that the signature of a loss names.

    Attributes:
        required: Those without a default; a batch that lacks one is an error.
        optional: Those with a default, which holds where a batch lacks them.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @classmethod
    def of(cls, loss: nn.Module) -> 'Extras':
        """Read the signature of ``loss.forward``.

        Raises:
            TypeError: It cannot be called with student, teacher and extras.
        """
        signature = inspect.signature(loss.forward)
        named = {name: parameter for name, parameter in signature.parameters.items() if name in _NAMES}
        try:
            signature.bind('student', 'teacher', **named)
        except TypeError as error:
            raise TypeError(
                f'expected a loss with forward(student, teacher, *, ...), after the star any of {_NAMES}, but got '
                f'{type(loss).__name__}.forward{signature}: {error}'
            ) from error
        required = tuple(name for name, parameter in named.items() if parameter.default is parameter.empty)
        return cls(required, tuple(name for name in named if name not in required))

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.required + self.optional

    def of_positions(self) -> 'Extras':
        """Return those for a loss whose rows are positions and not samples.

        Raises:
            TypeError: It requires something of each sample.
        """
        asked = [name for name in self.required if name in _OF_SAMPLES]
        if asked:
            raise TypeError(f'takes {asked}, one a sample')
        return Extras(self.required, tuple(name for name in self.optional if name not in _OF_SAMPLES))

    def collect(self, data_samples: Sequence[Any] | None, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for one batch.

        Args:
            data_samples: The batch's samples. ``labels`` are their ``gt_label`` in one tensor, on their device;
                ``sample_ids`` their ``sample_idx``, int64 on the CPU.
            known: Values of the other extras; None for those that there are not.

        Raises:
            RuntimeError: The batch lacks one that is required.
        """
        values = {**known, 'data_samples': data_samples}
        if 'labels' in self.names:
            values['labels'] = _labels(data_samples)
        if 'sample_ids' in self.names:
            values['sample_ids'] = _sample_ids(data_samples)
        missing = next((name for name in self.required if values[name] is None), None)
        if missing:
            raise RuntimeError(f'expected {_MISSING[missing]}')
        return {name: values[name] for name in self.names if values[name] is not None}


def _labels(data_samples: Sequence[Any] | None) -> torch.Tensor | None:
    labels = [getattr(sample, 'gt_label', None) for sample in data_samples or ()]
    return torch.cat(labels) if labels and all(label is not None for label in labels) else None


def _sample_ids(data_samples: Sequence[Any] | None) -> torch.Tensor | None:
    ids = [getattr(sample, 'sample_idx', None) for sample in data_samples or ()]
    return torch.tensor(ids) if ids and None not in ids else None
