"""The parts of the HTML report that never change: numbers, charts and tables. They are readable without JavaScript."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from mmkd_ext.visualization.discovery_result import DiscoveryResult, SummaryNumber
from mmkd_ext.visualization.svg_chart import line_chart

__all__ = [
    'DOUBTFUL',
    'broken_part',
    'class_count_part',
    'curves_part',
    'settings_part',
    'summary_numbers',
    'summary_part',
]

DOUBTFUL = 0.5
"""Below this confidence an image is called doubtful: its class is less likely than all others together."""

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


def broken_part(result: DiscoveryResult) -> str:
    """Render the files that could not be read; empty without any."""
    if not result.broken:
        return ''
    words = '<p class="prose">These files could not be read. All numbers on this page are about the others.</p>'
    return _section('broken', 'Broken files', words + _table(('File', 'Reason'), result.broken))


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
