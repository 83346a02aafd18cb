"""One self-contained HTML file about what was discovered. It needs no server, no network and no other file.

The page is ``html/report.html.in``. Its styles and scripts are inlined and named by their hashes in the content
security policy, so that nothing else can run, whatever names the files and classes have, and nothing can be loaded.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from mmkd_ext.visualization import html_parts
from mmkd_ext.visualization.assignments_csv import number_texts
from mmkd_ext.visualization.discovery_result import DiscoveryResult
from mmkd_ext.visualization.sprites import COLUMNS, Sprites, pack_sprites

__all__ = ['write_html_report']

_ASSETS = Path(__file__).with_name('html')

_STYLES = ('colours.css', 'page.css', 'classes.css', 'map.css', 'tables.css', 'dialogs.css', 'screens.css')
"""In the order in which they are joined; a later one overrides."""

_SCRIPTS = (
    'data.js',
    'corrections.js',
    'storage.js',
    'csv.js',
    'thumbnails.js',
    'tiles.js',
    'cards.js',
    'sections.js',
    'map_view.js',
    'map.js',
    'dialogs.js',
    'toolbar.js',
    'main.js',
)
"""In the order in which they are joined into one scope."""


def write_html_report(result: DiscoveryResult, path: str | Path) -> None:
    """Write the report. The same result gives the same bytes, with one version of Pillow.

    Args:
        result: What was discovered.
        path: HTML file to write; it appears when it is complete.
    """
    order = _reading_order(result)
    sprites = pack_sprites([result.pictures[image] for image in order.tolist()])
    page = _page(result, order, sprites)
    path = Path(path)
    draft = path.with_suffix('.tmp')
    # A file name that is no Unicode is shown with its bytes spelled out.
    draft.write_bytes(page.encode('utf-8', errors='backslashreplace'))
    draft.replace(path)


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
        summary=html_parts.summary_part(result),
        class_count=html_parts.class_count_part(result),
        curves=html_parts.curves_part(result),
        broken=html_parts.broken_part(result),
        settings=html_parts.settings_part(result),
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
        'doubtful': html_parts.DOUBTFUL,
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
    text = json.dumps({'id': hashlib.sha256(text.encode()).hexdigest()[:16], **data}, separators=(',', ':'))
    # Everything that is not ASCII is escaped by json; these three are ASCII and mean something in HTML.
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def _hash(text: str) -> str:
    return 'sha256-' + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _sheet(index: int, sheet: bytes) -> str:
    return f'<script type="text/plain" id="sheet-{index}">{base64.b64encode(sheet).decode()}</script>'
