"""Measures time on the host or on a GPU without making one wait for the other."""

import time
from typing import Any

import torch

__all__ = ['Stopwatch']


class Stopwatch:
    """Adds up the durations between :meth:`start` and :meth:`stop`, or of ``with`` blocks.

    On a GPU, events are put into the stream and read when the GPU has passed them.

    Args:
        device: Where the work happens.

    Example:
        >>> watch = Stopwatch(torch.device('cpu'))
        >>> with watch:
        ...     _ = torch.ones(2)
        >>> watch.seconds() > 0
        True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._intervals: list[tuple[Any, Any]] = []
        self._start: Any = None

    def start(self) -> None:
        """Begin an interval."""
        self._start = self._now()

    def stop(self) -> None:
        """End the interval."""
        self._intervals.append((self._start, self._now()))

    def __enter__(self) -> 'Stopwatch':
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Stopwatch':
        """Return the stopwatch itself: events of a GPU cannot be copied, and a copied model is not what is timed."""
        return self

    def seconds(self) -> float | None:
        """Return the sum of all durations, or None while the GPU is still busy with the last."""
        if self.device.type != 'cuda':
            return sum(end - start for start, end in self._intervals)
        if not all(end.query() for _, end in self._intervals):
            return None
        return sum(start.elapsed_time(end) for start, end in self._intervals) / 1000

    def _now(self) -> Any:
        if self.device.type != 'cuda':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
