import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmkd_ext.visualization import DiscoveryResult, write_html_report
from mmkd_ext.visualization.html import report as html_report

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


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_and_marks_stand_out(scheme):
    colours = _colours(scheme)
    for ground in ('background', 'surface'):
        for name in ('text', 'muted', 'accent', 'warning'):
            assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for index in range(8):
            assert _contrast(colours[f'class-{index}'], colours[ground]) >= 3, (index, ground)
    assert _contrast(colours['accent'], colours['on-accent']) >= 4.5


@pytest.mark.parametrize('vision', VISION)
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_class_colours_differ_for_every_vision(scheme, vision):
    """0.1 in OKLab is about five just noticeable differences."""
    colours = _colours(scheme)
    seen = [_oklab(np.clip(VISION[vision] @ _linear(colours[f'class-{i}']), 0, 1)) for i in range(8)]
    gaps = [np.linalg.norm(seen[i] - seen[j]) for i in range(8) for j in range(i)]
    assert min(gaps) > 0.1
