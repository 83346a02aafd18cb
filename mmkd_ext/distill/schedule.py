"""The weight of a term over the course of training."""

import math
from dataclasses import dataclass

__all__ = ['WeightSchedule']

_DECAYS = ('linear', 'cosine')


@dataclass(frozen=True)
class WeightSchedule:
    """A factor on the weight of a term: warm-up, decay and stop, all optional; the default is 1 throughout.

    The factor follows from the counters of training alone, so a resumed run goes on with the factor that it would
    have had. Where it is 0 the term is not computed, and a teacher none of whose terms is computed does not run.

    Attributes:
        by_epoch: Times count epochs, from 0, and the factor is constant within one; False: iterations.
        begin: The factor is 0 before this time.
        warmup: Duration of the linear rise from 0 at ``begin`` to 1.
        decay_begin: Time at which the decay begins; by default, when the warm-up ends.
        decay_end: Time at which the decay has reached ``final_factor``, to stay there; None: no decay.
        decay: ``'linear'`` or ``'cosine'`` (half a period).
        final_factor: What the decay ends at.
        stop: The factor is 0 from this time on; None: never.

    Raises:
        ValueError: Times are negative or in the wrong order, or a setting has no effect without another.

    Example:
        >>> schedule = WeightSchedule(warmup=2, decay_begin=4, decay_end=8, final_factor=0.5, stop=9)
        >>> [schedule.factor(epoch=epoch, iteration=0) for epoch in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.0]
    """

    by_epoch: bool = True
    begin: int = 0
    warmup: int = 0
    decay_begin: int | None = None
    decay_end: int | None = None
    decay: str = 'linear'
    final_factor: float = 0.0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.begin < 0 or self.warmup < 0:
            raise ValueError(f'schedule: expected begin and warmup >= 0 but got {self.begin} and {self.warmup}')
        if self.decay not in _DECAYS:
            raise ValueError(f'schedule: expected decay in {_DECAYS} but got {self.decay!r}')
        if not (math.isfinite(self.final_factor) and self.final_factor >= 0):
            raise ValueError(f'schedule: expected final_factor >= 0 but got {self.final_factor}')
        if self.decay_end is None:
            if self.decay_begin is not None or self.final_factor:
                raise ValueError('schedule: expected decay_end, the time when the decay is over, but got none')
        elif self.decay_end <= self._decay_begin:
            raise ValueError(
                f'schedule: expected decay_end after the decay begins at {self._decay_begin} but got {self.decay_end}'
            )
        if self.stop is not None and self.stop <= self.begin:
            raise ValueError(f'schedule: expected stop after begin at {self.begin} but got {self.stop}')

    def factor(self, *, epoch: int, iteration: int) -> float:
        """Return the factor in an iteration.

        Args:
            epoch: Number of epochs finished.
            iteration: Number of iterations finished.

        Returns:
            At least 0.
        """
        time = epoch if self.by_epoch else iteration
        if time < self.begin or (self.stop is not None and time >= self.stop):
            return 0.0
        rise = min((time - self.begin) / self.warmup, 1.0) if self.warmup else 1.0
        return rise * self._decayed(time)

    def __str__(self) -> str:
        """Describe the schedule in one line, as the start-up report shows it."""
        parts = [f'from {self.begin}'] if self.begin else []
        if self.warmup:
            parts.append(f'warm-up {self.warmup}')
        if self.decay_end is not None:
            parts.append(f'{self.decay} to {self.final_factor:g} in {self._decay_begin}..{self.decay_end}')
        if self.stop is not None:
            parts.append(f'stop at {self.stop}')
        return f'{", ".join(parts)} ({"epochs" if self.by_epoch else "iterations"})' if parts else 'constant'

    @property
    def _decay_begin(self) -> int:
        return self.begin + self.warmup if self.decay_begin is None else self.decay_begin

    def _decayed(self, time: int) -> float:
        if self.decay_end is None:
            return 1.0
        progress = (time - self._decay_begin) / (self.decay_end - self._decay_begin)
        progress = min(max(progress, 0.0), 1.0)
        if self.decay == 'cosine':
            progress = (1 - math.cos(math.pi * progress)) / 2
        return 1 - (1 - self.final_factor) * progress
