"""The page of a discovery: charts, parts, thumbnails, and what keeps it safe."""

import base64
import dataclasses
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.visualization import ClassCount, DiscoveryResult, SummaryNumber, write_html_report
from mmkd_ext.visualization.html import html_report
from mmkd_ext.visualization.html.html_report import COLUMNS, line_chart, pack_sprites, thumbnail_side

# --------------------------------------------------------------------------------------------------
# The page.


ASSETS = Path(html_report.__file__).with_name('page')
STYLE = ''.join(path.read_text() for path in sorted(ASSETS.glob('*.css')))

# Protan, deutan and tritan vision on linear RGB, severity 1 (Machado, Oliveira & Fernandes 2009), and full vision.
VISION = {
    'full': np.eye(3),
    'protan': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    'deutan': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    'tritan': [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


class Parser(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ('script', 'style'):
            self.texts.append((dict(attrs), ''))

    def handle_data(self, data):
        if self.cdata_elem:
            attributes, text = self.texts[-1]
            self.texts[-1] = (attributes, text + data)

    def text(self, **wanted):
        return next(text for attributes, text in self.texts if attributes == wanted)


@pytest.fixture(scope='module')
def result():
    rng = np.random.default_rng(0)
    return DiscoveryResult(
        title='</title><script>alert(1)</script>',
        paths=[*(f'{i}.png' for i in range(97)), '</script><script>alert(1)//', '\u2028 &amp; <!--', 'a\udce9\n$data'],
        pictures=list(rng.integers(0, 256, (100, 9, 9, 3), dtype=np.uint8)),
        known_names=['<b>', 'dog'],
        novel_names=['new 1'],
        labels=rng.integers(0, 3, 100),
        confidence=rng.random(100),
        distance=rng.random(100),
        is_labelled=rng.random(100) < 0.3,
        points=rng.normal(size=(100, 2)),
        relation_NK=rng.random((1, 2)),
        broken=[('b\udce9.png', '</td>')],
    )


@pytest.fixture(scope='module')
def parser(result, tmp_path_factory):
    return Parser(written(result, tmp_path_factory.mktemp('report')))


def data_of(parser):
    return json.loads(parser.text(type='application/json', id='data'))


def written(result, tmp_path):
    write_html_report(result, tmp_path / 'report.html')
    assert [path.name for path in tmp_path.iterdir()] == ['report.html']
    return (tmp_path / 'report.html').read_bytes().decode('utf-8')


def test_the_data_come_back_whatever_the_names(result, parser):
    data = data_of(parser)
    assert data['paths'] == result.paths
    assert (data['known'], data['novel']) == (['<b>', 'dog'], ['new 1'])
    assert data['labels'] == result.labels.tolist()
    assert data['labelled'] == np.flatnonzero(result.is_labelled).tolist()
    np.testing.assert_allclose([float(value) for value in data['confidence']], result.confidence, atol=5e-5)


def test_names_make_no_element(result, parser, tmp_path):
    plain = dataclasses.replace(
        result, title='a', paths=['a'] * 100, known_names=['a', 'b'], broken=[('a', 'b')], novel_names=['c']
    )
    tags = [tag for tag, _ in Parser(written(plain, tmp_path)).elements]
    assert [tag for tag, _ in parser.elements] == tags


def test_the_policy_allows_this_script_and_this_style_only(parser):
    policy = next(a['content'] for tag, a in parser.elements if a.get('http-equiv') == 'Content-Security-Policy')
    rules = dict(rule.strip().split(' ', 1) for rule in policy.split(';'))
    style, script = [text for attributes, text in parser.texts if not attributes]
    digests = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for name, text in (('style-src', style), ('script-src', script))
    }
    assert rules == {
        'default-src': "'none'",
        'img-src': 'blob:',
        'base-uri': "'none'",
        'form-action': "'none'",
        **digests,
    }


def test_nothing_is_loaded(parser):
    for tag, attributes in parser.elements:
        assert tag not in ('link', 'img', 'iframe', 'object', 'base')
        assert not [name for name in attributes if name in ('src', 'style') or name.startswith('on')]
        assert attributes.get('href', '#').startswith('#')
    assert not re.search(r'url\(|@import', STYLE)


def test_the_same_result_gives_the_same_bytes_and_another_one_another_fingerprint(result, tmp_path):
    first = written(result, tmp_path)
    assert written(result, tmp_path) == first
    fingerprint = re.search(r'"id":"(\w+)"', first)[1]
    other = written(dataclasses.replace(result, novel_names=['new 2']), tmp_path)
    assert re.search(r'"id":"(\w+)"', other)[1] != fingerprint


def test_the_map_keeps_its_shape_with_y_upwards(result, tmp_path):
    points = np.zeros((100, 2))
    points[:4] = [[-3, 10], [5, 10], [5, 12], [1, 11]]
    points[4:] = [1, 11]
    data = data_of(Parser(written(dataclasses.replace(result, points=points), tmp_path)))
    assert data['points'][:4] == [[0, 0.625], [1, 0.625], [1, 0.375], [0.5, 0.5]]


def test_pictures_seen_together_lie_in_one_sheet(result, parser):
    order = np.argsort(data_of(parser)['thumbnails']['cells'])
    assert (np.diff(result.labels[order]) >= 0).all()
    for label in range(3):
        assert (np.diff(result.confidence[order][result.labels[order] == label]) <= 0).all()


def test_every_file_is_part_of_the_page():
    joined = {*html_report._SCRIPTS, *html_report._STYLES, 'report.html.in'}
    assert joined == {path.name for path in ASSETS.iterdir()}


def _colours(scheme):
    light, dark = re.findall(r':root \{(.*?)\}', (ASSETS / 'colours.css').read_text(), re.DOTALL)
    return dict(re.findall(r'--([\w-]+): (#\w{6});', {'light': light, 'dark': dark}[scheme]))


def _linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _contrast(first, second):
    """WCAG 2.2."""
    light, dark = sorted((_linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _oklab(linear):
    """Ottosson 2020."""
    cones = np.cbrt(
        np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                  [0.0883024619, 0.2817188376, 0.6299787005]]) @ linear
    )  # fmt: skip
    return np.array(
        [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
         [0.0259040371, 0.7827717662, -0.8086757660]]) @ cones  # fmt: skip


def test_text_and_marks_stand_out():
    for colours in map(_colours, ('light', 'dark')):
        for ground in ('background', 'surface'):
            for name in ('text', 'muted', 'accent', 'warning'):
                assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
            for index in range(8):
                assert _contrast(colours[f'class-{index}'], colours[ground]) >= 3, (index, ground)
        assert _contrast(colours['accent'], colours['on-accent']) >= 4.5


def test_class_colours_differ_for_every_vision():
    """0.1 in OKLab is about five just noticeable differences."""
    for scheme, vision in itertools.product(('light', 'dark'), VISION):
        colours = _colours(scheme)
        seen = [_oklab(np.clip(VISION[vision] @ _linear(colours[f'class-{i}']), 0, 1)) for i in range(8)]
        gaps = [np.linalg.norm(seen[i] - seen[j]) for i in range(8) for j in range(i)]
        assert min(gaps) > 0.1, (scheme, vision)


# --------------------------------------------------------------------------------------------------
# Parts without JavaScript.


@pytest.fixture
def counted():
    """Two labelled images; of eight others, three are in new classes and four below one half."""
    return DiscoveryResult(
        title='',
        paths=[f'{i}.png' for i in range(10)],
        pictures=[''] * 10,
        known_names=['cat', 'dog'],
        novel_names=['new 1', 'new 2', 'new 3'],
        labels=np.array([0, 1, 0, 0, 1, 1, 1, 2, 3, 4]),
        confidence=np.array([0.0, 0.0, 0.1, 0.2, 0.3, 0.49, 0.5, 0.6, 0.7, 1.0]),
        distance=np.zeros(10),
        is_labelled=np.arange(10) < 2,
    )


def text(html):
    return ''.join(ElementTree.fromstring(html).itertext())


def test_summary_counts_images_without_label(counted):
    numbers = html_report.summary_numbers(counted)
    assert [(number.value, number.name) for number in numbers] == [
        ('8', 'images looked at'),
        ('3', 'new classes'),
        ('3', 'images in new classes'),
        ('4', 'doubtful images'),
    ]
    assert '38 %' in numbers[2].meaning
    assert '50 % of the images' in numbers[3].meaning


def test_numbers_of_the_method_follow_and_broken_files_come_last(counted):
    own = SummaryNumber('97 %', 'accuracy', 'Right of 100.')
    full = dataclasses.replace(counted, summary=[own], broken=[('a', 'b')] * 1200)
    numbers = html_report.summary_numbers(full)
    assert numbers[4] == own
    assert (numbers[5].value, numbers[5].name) == ('1,200', 'broken files')
    assert '97 %' in text(html_report.summary_part(full))


def test_what_is_not_there_has_no_section(counted):
    for part in ('class_count_part', 'curves_part', 'broken_part', 'settings_part'):
        assert getattr(html_report, part)(counted) == ''
    assert html_report.curves_part(dataclasses.replace(counted, curves={'loss': [], 'acc': [(0, np.nan)]})) == ''


def test_names_are_text_with_visible_control_characters(counted):
    broken = [('<script>alert("1")</script>\n.png', "can't & won't")]
    part = html_report.broken_part(dataclasses.replace(counted, broken=broken))
    assert '<script>alert("1")</script>␊.png' in text(part)
    assert "can't & won't" in text(part)
    settings = html_report.settings_part(dataclasses.replace(counted, settings={'<b>': ('<i>', None)}))
    assert '<b>' in text(settings)
    assert "('<i>', None)" in text(settings)


def test_the_number_of_classes_is_explained(counted):
    count = ClassCount([2, 3], [0.5, 0.6], [0.1, 0.1], 3, 'accuracy of <labelled> images')
    part = html_report.class_count_part(dataclasses.replace(counted, class_count=count))
    assert 'took 3 new classes' in text(part)
    assert 'accuracy of <labelled> images' in text(part)
    assert 'class="mark"' in part


# --------------------------------------------------------------------------------------------------
# Line charts.


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


def test_one_point_or_no_change_stays_inside():
    for points in ([(1, 2.0)], [(1, 5.0), (2, 5.0)], [(0, 0.0)]):
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


# --------------------------------------------------------------------------------------------------
# Thumbnails.


def cut(packed, index):
    """The thumbnail as a page cuts it out."""
    sheet = Image.open(io.BytesIO(packed.sheets[index // COLUMNS**2])).convert('RGB')
    cell = index % COLUMNS**2
    x, y = cell % COLUMNS * packed.side, cell // COLUMNS * packed.side
    width, height = packed.sizes[index].tolist()
    return np.asarray(sheet.crop((x, y, x + width, y + height)), dtype=float)


def test_each_picture_is_found_in_its_cell():
    colours = np.random.default_rng(0).integers(0, 256, (150, 3), dtype=np.uint8)
    packed = pack_sprites(list(np.broadcast_to(colours[:, None, None], (150, 20, 10, 3))))
    assert len(packed.sheets) == 3
    assert packed.sizes.tolist() == [[60, 120]] * 150  # six times 10 x 20, the most that fits into 128
    for index in (0, 7, 8, 63, 64, 149):
        np.testing.assert_allclose(cut(packed, index).mean(axis=(0, 1)), colours[index], atol=6)


def test_a_broken_picture_leaves_an_empty_cell_and_no_other_is_touched(tmp_path):
    good = np.full((8, 8), 200, dtype=np.uint8)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8)).save(tmp_path / 'whole.jpg')
    (tmp_path / 'cut.jpg').write_bytes((tmp_path / 'whole.jpg').read_bytes()[:900])
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty.gif').write_bytes(b'')
    broken = [tmp_path / name for name in ('cut.jpg', 'text.png', 'empty.gif', 'missing.png', '')]
    packed = pack_sprites([good, *broken, good])
    assert packed.sizes.tolist() == [[128, 128], *[[0, 0]] * 5, [128, 128]]
    np.testing.assert_allclose(cut(packed, 6), 200, atol=3)


def test_the_same_pictures_give_the_same_bytes():
    pictures = list(np.random.default_rng(0).integers(0, 256, (100, 30, 30, 3), dtype=np.uint8))
    assert pack_sprites(pictures).sheets == pack_sprites(pictures).sheets


def test_ten_thousand_pictures_of_noise_stay_below_the_bar(monkeypatch):
    """Nothing compresses worse than noise: 60 MB for 10,000, of which base64 takes a third."""
    monkeypatch.setattr(html_report, 'thumbnail_side', lambda _: thumbnail_side(10_000))
    packed = pack_sprites(list(np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)))
    assert packed.side == 64
    assert len(packed.sheets[0]) / 64 * 10_000 * 4 / 3 < 50e6


def test_many_thumbnails_are_small_and_none_are_none():
    assert [thumbnail_side(n) for n in (0, 1, 2500, 10_000, 40_000)] == [128, 128, 128, 64, 32]
    packed = pack_sprites([])
    assert (packed.sheets, packed.sizes.shape) == ([], (0, 2))
