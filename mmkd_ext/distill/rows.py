"""Turns the tapped tensors of both networks into the rows that a relation loss compares."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkd_ext.functional.draws import seeded_generator
from mmkd_ext.functional.maps import pool_map, sample_positions, sample_tokens
from mmkd_ext.functional.sharing import once

__all__ = ['Rows']


@dataclass(frozen=True)
class Rows:
    """What a sample is to the loss; by default, whatever is a row of the tensors. At most one is set.

    Random positions follow from the iteration, so a resumed training draws those of an undisturbed one.

    Attributes:
        pooling: ``'gap'``: the mean of each map (N, C, H, W) over its positions.
        tokens: So many random positions of each map are the samples, each image with its own
            (:func:`~mmkd_ext.functional.maps.sample_tokens`).
        positions: The batch is compared at so many random positions, the same in all images, each by itself; the loss
            is the mean over them (:func:`~mmkd_ext.functional.maps.sample_positions`).

    Raises:
        ValueError: A setting makes no sense, or two are set.
    """

    pooling: str | None = None
    tokens: int | None = None
    positions: int | None = None

    def __post_init__(self) -> None:
        if self.pooling not in (None, 'gap'):
            raise ValueError(f"expected pooling='gap' or none but got {self.pooling!r}")
        for name, number in (('tokens', self.tokens), ('positions', self.positions)):
            if number is not None and number < 1:
                raise ValueError(f'expected {name} >= 1 but got {number}')
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise ValueError(f'expected one of pooling, tokens and positions but got {given}; drop all but one')

    def __call__(self, student: Tensor, teacher: Tensor, iteration: int) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs of tensors whose losses are averaged: one, or one for each position.

        Args:
            student: Tapped tensor.
            teacher: Tapped tensor.
            iteration: Another one draws other positions.

        Raises:
            ValueError: A tensor is no map, or the numbers of images differ.
        """
        if self.pooling:
            return [(once(pool_map, student), once(pool_map, teacher))]
        if self.tokens:
            return [sample_tokens(student, teacher, self.tokens, _generator(iteration, student.device))]
        if self.positions:
            batches = sample_positions(student, teacher, self.positions, _generator(iteration, student.device))
            return list(zip(*(batch.unbind() for batch in batches), strict=True))
        return [(student, teacher)]

    def __str__(self) -> str:
        """Say it in a few words, as the start-up report shows it."""
        if self.pooling:
            return f' after {self.pooling}'
        if self.tokens:
            return f' of {self.tokens} tokens'
        return f' at {self.positions} positions' if self.positions else ''


def _generator(iteration: int, device: torch.device) -> torch.Generator:
    """Draw on the device of the maps, so that no step waits for a transfer."""
    return seeded_generator(0, iteration, device=device)
