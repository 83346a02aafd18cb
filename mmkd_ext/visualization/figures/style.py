"""One look for every figure: type sizes, colours, and how a figure becomes a file or an array.

Figures are plain :class:`matplotlib.figure.Figure` objects, so no display, backend or pyplot state is involved.
"""

from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TEXT = '#222222'
MUTED = '#6b6b6b'
GRID = '#e4e4e4'
WRONG = '#c8501e'
"""Vermilion: the one colour that means "differs from the true class"."""

PALETTE = tuple('#332288 #88ccee #117733 #ddaa33 #cc6677 #44aa99 #882255 #999933 #aa4499 #4477aa'.split())  # noqa: SIM905
"""Ten categorical colours that stay distinct under the common colour deficiencies (after Paul Tol, "muted")."""

SMALL, BODY, TITLE = 7.0, 8.0, 10.0
"""Type sizes in points, of annotations, of axis and tick labels, and of titles."""

DPI = 200

styled = matplotlib.rc_context(
    {
        'font.family': 'sans-serif',
        'font.size': BODY,
        'text.color': TEXT,
        'axes.labelcolor': TEXT,
        'axes.edgecolor': MUTED,
        'axes.linewidth': 0.6,
        'axes.titlesize': BODY + 1,
        'axes.titleweight': 'bold',
        'axes.titlelocation': 'left',
        'axes.spines.top': False,
        'axes.spines.right': False,
        'xtick.color': MUTED,
        'ytick.color': MUTED,
        'xtick.labelcolor': TEXT,
        'ytick.labelcolor': TEXT,
        'xtick.labelsize': BODY,
        'ytick.labelsize': BODY,
        'xtick.major.size': 2.5,
        'ytick.major.size': 2.5,
        'xtick.major.width': 0.6,
        'ytick.major.width': 0.6,
        'legend.frameon': False,
        'legend.fontsize': BODY,
        'axes.formatter.use_mathtext': True,
    }
)
"""Decorator of every figure function; the shared settings hold while the figure is drawn, and nowhere else."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of ``width`` x ``height`` inches that lays out its own margins."""
    return Figure(figsize=(width, height), dpi=DPI, layout='constrained', facecolor='white')


def set_titles(figure: Figure, title: str, subtitle: str) -> None:
    """Write a bold title and a grey line below it, both flush left."""
    height = figure.get_figheight()
    figure.set_layout_engine('constrained', rect=(0, 0, 1, 1 - 0.5 / height))
    figure.text(0.012, 1 - 0.08 / height, title, size=TITLE, weight='bold', va='top')
    figure.text(0.012, 1 - 0.29 / height, subtitle, size=BODY, color=MUTED, va='top')


def blank(axes: Axes) -> None:
    """Remove ticks and frame of axes that hold pictures or a map without units."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def grid(axes: Axes, axis: Literal['both', 'x', 'y'] = 'both') -> None:
    """Draw thin lines at the ticks, behind all else."""
    axes.grid(axis=axis, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def class_colour(index: int) -> str:
    """Return the colour of class ``index``; after ten classes the palette starts again."""
    return PALETTE[index % len(PALETTE)]


def to_array(figure: Figure) -> np.ndarray:
    """Render a figure to pixels.

    Args:
        figure: Any figure.

    Returns:
        np.ndarray: RGB picture, uint8, (height, width, 3).
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
