import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mmkd_ext.visualization.html.report import line_chart


def parse(chart):
    return ElementTree.fromstring(chart)


def numbers(path):
    return np.array(re.findall(r'-?[\d.]+', path), dtype=float).reshape(-1, 2)


def of_class(svg, name):
    return next(part for part in svg.iter() if part.get('class') == name)


def test_points_lie_where_the_ticks_say():
    """Two ticks on each axis give the scale; the line must follow it."""
    points = [(0, 3.0), (2, 7.0), (10, -1.0)]
    svg = parse(line_chart(points, title='loss', x_name='epoch'))
    texts = [part for part in svg.iter('text') if part.text != 'epoch']
    across = [(float(part.text), float(part.get('x'))) for part in texts if part.get('text-anchor') == 'middle']
    up = [(float(part.text), float(part.get('y')) - 4) for part in texts if part.get('text-anchor') == 'end']
    expected = [[np.polyval(np.polyfit(*zip(*ticks, strict=True), 1), value) for value in values]
                for ticks, values in zip((across, up), zip(*points, strict=True), strict=True)]  # fmt: skip
    np.testing.assert_allclose(numbers(of_class(svg, 'line').get('d')), np.transpose(expected), atol=0.2)
    assert svg.get('aria-label') == 'loss: from 3 at 0 to -1 at 10'


def test_band_encloses_the_line_symmetrically():
    svg = parse(line_chart([(2, 1.0), (3, 2.0)], title='', x_name='k', errors=[0.5, 0.25], mark=3))
    line, band = numbers(of_class(svg, 'line').get('d')), numbers(of_class(svg, 'band').get('d'))
    upper, lower = band[:2], band[:1:-1]
    np.testing.assert_allclose((upper + lower) / 2, line, atol=0.1)
    assert (lower[0, 1] - upper[0, 1]) / (lower[1, 1] - upper[1, 1]) == pytest.approx(2, rel=0.02)
    assert float(of_class(svg, 'mark').get('x1')) == line[1, 0]


@pytest.mark.parametrize('points', [[(1, 2.0)], [(1, 5.0), (2, 5.0)], [(0, 0.0)]])
def test_one_point_or_no_change_stays_inside(points):
    svg = parse(line_chart(points, title='', x_name='epoch'))
    places = numbers(of_class(svg, 'line').get('d'))
    assert np.isfinite(places).all()
    assert ((places >= 0) & (places <= [360, 220])).all()


def test_points_that_are_not_finite_are_left_out():
    svg = parse(line_chart([(0, 1.0), (1, np.nan), (2, np.inf), (3, 2.0)], title='', x_name='epoch'))
    assert len(numbers(of_class(svg, 'line').get('d'))) == 2
    assert line_chart([(0, np.nan)], title='', x_name='epoch') == ''
    assert line_chart([], title='', x_name='epoch') == ''


def test_names_are_text():
    svg = parse(line_chart([(0, 1.0)], title='<b>"a"', x_name='<i>'))
    assert svg.get('aria-label').startswith('<b>"a"')
    assert [part.text for part in svg.iter('text')][-1] == '<i>'


def test_many_points_have_no_dots():
    assert '<circle' in line_chart([(i, 0.0) for i in range(40)], title='', x_name='')
    assert '<circle' not in line_chart([(i, 0.0) for i in range(41)], title='', x_name='')
