"""One self-contained HTML file about what was discovered. It needs no server, no network and no other file.

The page is ``page/report.html.in``. Its styles and scripts are inlined and named by their hashes in the content
security policy, so that nothing else can run, whatever names the files and classes have, and nothing can be loaded.
Numbers, charts and tables are readable without JavaScript. Thumbnails of thousands of images are packed into a few
pictures that a browser decodes when they come into view.
"""

import base64
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mmkd_ext.io import sha256, write_bytes
from mmkd_ext.pictures import UNREADABLE, ValueRange, read_thumbnail
from mmkd_ext.visualization.html.discovery_result import DiscoveryResult, Picture, SummaryNumber, number_texts

# --------------------------------------------------------------------------------------------------
# Line charts as inline SVG; the style sheet of the page gives the colours, so they follow its dark mode.

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_MAX_DOTS = 40
"""Above this number of points, dots would merge into the line."""


def _ticks(low: float, high: float, *, is_integer: bool = False) -> np.ndarray:
    """Round numbers that cover [low, high]."""
    locator = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], integer=is_integer, min_n_ticks=2)
    return np.asarray(locator.tick_values(low, high))


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


# --------------------------------------------------------------------------------------------------
# The parts that never change: numbers, charts and tables.

DOUBTFUL = 0.5
"""Below this confidence an image is called doubtful; its class is less likely than all others together."""

_VISIBLE = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}
"""Control characters, such as a line break in a file name -> their visible signs."""


def summary_numbers(result: DiscoveryResult) -> list[SummaryNumber]:
    """Count what was discovered, and add the numbers of the method.

    Args:
        result: What was discovered.

    Returns:
        list: Numbers in the order of the page.
    """
    is_new = ~np.asarray(result.is_labelled, dtype=bool)
    labels, confidence = np.asarray(result.labels)[is_new], np.asarray(result.confidence)[is_new]
    num_images, num_known = len(labels), len(result.known_names)
    in_novel = int((labels >= num_known).sum())
    doubtful = int((confidence < DOUBTFUL).sum())
    share = 100 / max(num_images, 1)
    numbers = [
        SummaryNumber(f'{num_images:,}', 'images looked at', 'Images without a label that were sorted into classes.'),
        SummaryNumber(
            f'{len(result.novel_names):,}',
            'new classes',
            f'Groups of images that look alike and fit none of your {num_known:,} known classes.',
        ),
        SummaryNumber(
            f'{in_novel:,}',
            'images in new classes',
            f'{in_novel * share:.0f} % of the images looked at. The others look like one of your known classes.',
        ),
        SummaryNumber(
            f'{doubtful:,}',
            'doubtful images',
            f'Their class is less than {100 * DOUBTFUL:.0f} % certain ({doubtful * share:.0f} % of the images). '
            'Worth a look by a person.',
        ),
        *result.summary,
    ]
    if result.broken:
        meaning = 'They could not be read and were left out. They are listed at the end of this page.'
        numbers.append(SummaryNumber(f'{len(result.broken):,}', 'broken files', meaning))
    return numbers


def summary_part(result: DiscoveryResult) -> str:
    """Render :func:`summary_numbers` as a list of tiles."""
    tiles = (
        f'<div class="number"><dt>{escape(number.name)}</dt><dd class="value">{escape(number.value)}</dd>'
        f'<dd>{escape(number.meaning)}</dd></div>'
        for number in summary_numbers(result)
    )
    return f'<dl class="numbers">{"".join(tiles)}</dl>'


def class_count_part(result: DiscoveryResult) -> str:
    """Render how the number of classes was estimated; empty when it was given."""
    count = result.class_count
    if count is None:
        return ''
    points = list(zip(map(float, count.candidates), count.scores, strict=True))
    title = f'{count.score_name} by number of new classes'
    chart = line_chart(points, title=title, x_name='new classes', errors=count.errors, mark=count.chosen)
    words = (
        f'The run took <strong>{count.chosen:,}</strong> new classes, the dashed line. The curve is the '
        f'{escape(count.score_name)} for each number that was tried; higher is better. The band is one standard error: '
        'numbers whose bands overlap are about equally likely.'
    )
    return _section('class-count', 'How many new classes?', f'<p class="prose">{words}</p><figure>{chart}</figure>')


def curves_part(result: DiscoveryResult) -> str:
    """Render the course of training; empty without curves."""
    charts = [(name, line_chart(points, title=name, x_name='epoch')) for name, points in result.curves.items()]
    figures = [f'<figure><figcaption>{escape(name)}</figcaption>{chart}</figure>' for name, chart in charts if chart]
    return _section('curves', 'Course of training', f'<div class="charts">{"".join(figures)}</div>') if figures else ''


_MAX_IGNORED = 1000


def broken_part(result: DiscoveryResult) -> str:
    """Render what was not used, and what was decided about odd input; empty without any."""
    parts = []
    if result.broken:
        words = '<p class="prose">These files could not be read. All numbers on this page are about the others.</p>'
        parts.append(_section('broken', 'Broken files', words + _table(('File', 'Reason'), result.broken)))
    if result.ignored or result.notes:
        notes = ''.join(f'<p class="prose">{escape(note)}.</p>' for note in result.notes)
        shown, left = result.ignored[:_MAX_IGNORED], len(result.ignored) - _MAX_IGNORED
        if left > 0:
            notes += f'<p class="prose">The first {_MAX_IGNORED:,} of {len(result.ignored):,} are shown.</p>'
        table = _table(('File or folder', 'Reason'), shown) if shown else ''
        parts.append(_section('ignored', 'Passed over', notes + table))
    return ''.join(parts)


def settings_part(result: DiscoveryResult) -> str:
    """Render what was run; empty without settings."""
    if not result.settings:
        return ''
    rows = [(name, str(value)) for name, value in result.settings.items()]
    return _section('settings', 'Settings of the run', _table(('Setting', 'Value'), rows))


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def _table(head: Sequence[str], rows: Iterable[tuple[str, str]]) -> str:
    def line(row: Iterable[str]) -> str:
        return ''.join(f'<td><bdi>{escape(cell.translate(_VISIBLE))}</bdi></td>' for cell in row)

    cells = ''.join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = ''.join(f'<tr>{line(row)}</tr>' for row in rows)
    # A scrolling box must be reachable by keyboard to be scrolled.
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'
        f'<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


# --------------------------------------------------------------------------------------------------
# Thumbnails.

COLUMNS = 8
"""Columns, and rows, of a sheet."""

_MAX_SIDE = 128
_MAX_PIXELS = 10_000 * 64 * 64
"""Of all thumbnails together: at most 40 MB as base64 at the three bytes per four pixels that pure noise takes."""

_QUALITY = 80


@dataclass(frozen=True)
class Sprites:
    """Packed thumbnails.

    Attributes:
        side: Width and height of a cell in pixels.
        sheets: WebP pictures of 8 x 8 cells each, row by row, the last one possibly with empty cells.
        sizes: Width and height of each thumbnail in the upper left corner of its cell, int, (images, 2); 0, 0 if its
            picture could not be read.
    """

    side: int
    sheets: list[bytes]
    sizes: np.ndarray


def thumbnail_side(num_images: int) -> int:
    """Return the side of a thumbnail in pixels: 128, and less for more than 2,500 images, so that the file stays small.

    Args:
        num_images: Number of images, >= 0.

    Returns:
        int: 64 for 10,000 images, 32 for 40,000.
    """
    return min(_MAX_SIDE, max(1, math.isqrt(_MAX_PIXELS // max(num_images, 1))))


def _pack_sheet(
    pictures: Sequence[Picture], side: int, value_range: ValueRange | None
) -> tuple[bytes, list[tuple[int, int]]]:
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new('RGB', (COLUMNS * side, rows * side))
    sizes = []
    for cell, picture in enumerate(pictures):
        try:
            image = read_thumbnail(picture, side, value_range)
        except UNREADABLE:
            sizes.append((0, 0))
            continue
        sheet.paste(image, (cell % COLUMNS * side, cell // COLUMNS * side))
        sizes.append(image.size)
    buffer = io.BytesIO()
    sheet.save(buffer, 'WEBP', quality=_QUALITY)
    return buffer.getvalue(), sizes


def pack_sprites(pictures: Sequence[Picture], value_range: ValueRange | None = None) -> Sprites:
    """Read all pictures and pack their thumbnails in this order.

    Args:
        pictures: Files or pixels. Neighbours share a sheet, so pictures that are seen together should be neighbours.
        value_range: What is black and white in pictures of more than 8 bits.

    Returns:
        Sprites: The same bytes for the same pictures.
    """
    side = thumbnail_side(len(pictures))
    groups = [pictures[start : start + COLUMNS**2] for start in range(0, len(pictures), COLUMNS**2)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        packed = list(pool.map(lambda group: _pack_sheet(group, side, value_range), groups))
    sizes = [size for _, group_sizes in packed for size in group_sizes]
    return Sprites(side, [sheet for sheet, _ in packed], np.array(sizes, dtype=np.int64).reshape(-1, 2))


# --------------------------------------------------------------------------------------------------
# The page.

_ASSETS = Path(__file__).with_name('page')

_STYLES = [f'{name}.css' for name in 'colours page classes map tables dialogs screens'.split()]  # noqa: SIM905
"""In the order in which they are joined; a later one overrides."""
_SCRIPT_NAMES = 'data corrections storage csv thumbnails tiles cards sections map_view map dialogs toolbar main'
_SCRIPTS = [f'{name}.js' for name in _SCRIPT_NAMES.split()]
"""In the order in which they are joined into one scope."""


def write_html_report(result: DiscoveryResult, path: str | Path) -> None:
    """Write the report. The same result gives the same bytes, with one version of Pillow.

    Args:
        result: What was discovered.
        path: HTML file to write; it appears when it is complete.
    """
    order = _reading_order(result)
    sprites = pack_sprites([result.pictures[image] for image in order.tolist()], result.value_range)
    page = _page(result, order, sprites)
    # A file name that is no Unicode is shown with its bytes spelled out.
    write_bytes(path, page.encode('utf-8', errors='backslashreplace'))


def _reading_order(result: DiscoveryResult) -> np.ndarray:
    """Images class by class, the most confident first: what a gallery shows together lies in one sheet, (images,)."""
    return np.lexsort((-np.asarray(result.confidence, dtype=np.float64), np.asarray(result.labels)))


def _page(result: DiscoveryResult, order: np.ndarray, sprites: Sprites) -> str:
    style = _join(_STYLES)
    script = f"(() => {{\n'use strict';\n{_join(_SCRIPTS)}}})();\n"
    data = _data_json(_data(result, order, sprites))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template((_ASSETS / 'report.html.in').read_text(encoding='utf-8')).substitute(
        policy=policy,
        title=escape(result.title),
        style=style,
        summary=summary_part(result),
        class_count=class_count_part(result),
        curves=curves_part(result),
        broken=broken_part(result),
        settings=settings_part(result),
        data=data,
        sheets='\n'.join(_sheet(index, sheet) for index, sheet in enumerate(sprites.sheets)),
        script=script,
    )


def _join(names: Sequence[str]) -> str:
    return ''.join((_ASSETS / name).read_text(encoding='utf-8') for name in names)


def _data(result: DiscoveryResult, order: np.ndarray, sprites: Sprites) -> dict[str, Any]:
    """Return what the scripts read; all lists but ``relation`` and the names have one entry per image."""
    is_labelled = np.asarray(result.is_labelled, dtype=bool)
    cells = np.argsort(order)
    confidence, distance = number_texts(result)
    points = None if result.points is None else _unit_square(np.asarray(result.points, dtype=np.float64))
    return {
        'known': list(result.known_names),
        'novel': list(result.novel_names),
        'doubtful': DOUBTFUL,
        'paths': list(result.paths),
        'labels': np.asarray(result.labels).tolist(),
        'labelled': np.flatnonzero(is_labelled).tolist(),
        # Strings, so that the CSV of the page and that of Python cannot differ in the last digit.
        'confidence': confidence,
        'distance': distance,
        'points': points,
        'relation': None if result.relation_NK is None else np.round(result.relation_NK, 4).tolist(),
        'thumbnails': {
            'side': sprites.side,
            'columns': COLUMNS,
            'cells': cells.tolist(),
            'sizes': sprites.sizes[cells].tolist(),
        },
    }


def _unit_square(points: np.ndarray) -> list[list[float]]:
    """Scale coordinates into [0, 1] with one factor for both axes, (images, 2); y points down, as on a screen."""
    if not len(points):
        return []
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    placed = (points - low + (span.max() - span) / 2) / (span.max() or 1.0)
    return np.round(np.column_stack([placed[:, 0], 1 - placed[:, 1]]), 4).tolist()


def _data_json(data: dict[str, Any]) -> str:
    """Write JSON that cannot end its script element, with a fingerprint by which corrections know their report."""
    text = json.dumps(data, separators=(',', ':'))
    text = json.dumps({'id': sha256(text)[:16], **data}, separators=(',', ':'))
    # Everything that is not ASCII is escaped by json; these three are ASCII and mean something in HTML.
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def _hash(text: str) -> str:
    return 'sha256-' + base64.b64encode(bytes.fromhex(sha256(text))).decode()


def _sheet(index: int, sheet: bytes) -> str:
    return f'<script type="text/plain" id="sheet-{index}">{base64.b64encode(sheet).decode()}</script>'
