"""Small line charts as inline SVG; the style sheet of the page gives the colours, so they follow its dark mode."""

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator

__all__ = ['line_chart']

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_MAX_DOTS = 40
"""Above this number of points, dots would merge into the line."""


def _ticks(low: float, high: float, *, is_integer: bool = False) -> np.ndarray:
    """Round numbers that cover [low, high]."""
    return MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=is_integer, min_n_ticks=2).tick_values(low, high)


def _place(values: np.ndarray, low: float, high: float, start: float, end: float) -> np.ndarray:
    span = high - low or 1.0
    return np.round(start + (values - low) / span * (end - start), 1)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return 'M' + 'L'.join(f'{a:g} {b:g}' for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _axes(x_ticks: np.ndarray, y_ticks: np.ndarray, x_place: np.ndarray, y_place: np.ndarray) -> list[str]:
    parts = []
    for value, place in zip(y_ticks.tolist(), y_place.tolist(), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{place:g}" y2="{place:g}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{place + 4:g}" text-anchor="end">{value:.4g}</text>')
    for value, place in zip(x_ticks.tolist(), x_place.tolist(), strict=True):
        if _LEFT <= place <= _WIDTH - _RIGHT:
            parts.append(f'<text x="{place:g}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
    return parts


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_name: str,
    errors: Sequence[float] | None = None,
    mark: float | None = None,
) -> str:
    """Draw a line, with a band of uncertainty and one marked place if wanted.

    Args:
        points: (x, y), x ascending; points that are not finite are left out.
        title: What a screen reader says of the chart.
        x_name: Name of the x axis; its ticks are whole numbers.
        errors: Half height of the band at each point, >= 0.
        mark: An x that gets a vertical line.

    Returns:
        str: An ``svg`` element; empty when no point is finite.
    """
    data = np.column_stack([np.array(points, dtype=np.float64).reshape(-1, 2), np.zeros(len(points))])
    if errors is not None:
        data[:, 2] = errors
    data = data[np.isfinite(data).all(axis=1)]
    if not len(data):
        return ''
    x, y, error = data.T
    x_ticks, y_ticks = _ticks(x[0], x[-1], is_integer=True), _ticks((y - error).min(), (y + error).max())

    def across(values: np.ndarray) -> np.ndarray:
        return _place(values, x[0], x[-1], _LEFT, _WIDTH - _RIGHT)

    def up(values: np.ndarray) -> np.ndarray:
        return _place(values, y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)

    parts = _axes(x_ticks, y_ticks, across(x_ticks), up(y_ticks))
    if errors is not None:
        there_and_back = np.concatenate([y + error, (y - error)[::-1]])
        parts.append(f'<path class="band" d="{_path(across(np.concatenate([x, x[::-1]])), up(there_and_back))}Z"/>')
    if mark is not None:
        place = across(np.array([mark]))[0]
        parts.append(f'<line class="mark" x1="{place:g}" x2="{place:g}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    parts.append(f'<path class="line" d="{_path(across(x), up(y))}"/>')
    if len(data) <= _MAX_DOTS:
        for a, b, point in zip(across(x).tolist(), up(y).tolist(), data.tolist(), strict=True):
            parts.append(f'<circle cx="{a:g}" cy="{b:g}" r="3"><title>{point[0]:g}: {point[1]:.4g}</title></circle>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    label = escape(f'{title}: from {y[0]:.4g} at {x[0]:g} to {y[-1]:.4g} at {x[-1]:g}')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
