"""The HTML report in a real browser: what a person sees, clicks, types and downloads."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromium import CONTROL, Chromium, Page, find_chromium
from mmkd_ext.visualization import ClassCount, DiscoveryResult, write_assignments_csv, write_html_report

pytestmark = pytest.mark.skipif(find_chromium() is None, reason='needs a Chromium browser in PATH')

ODD_NAMES = [
    '<script>window.attacked = 1</script>.png',
    '"><img src=x onerror="window.attacked = 1">.png',
    '</script><!--<script>.png',
    "=HYPERLINK('http://a.b', 'c').png",
    '-1+1.png',
    'line\r\nbreak, and "quotes".png',
    'naïve 漢字 \U0001f98b \u2028 .png',
    '\u202egnp.exe',
    'not unicode \udce9\udcff.png',
    ' $title ${script} %s {data} \\n.png',
]
NUM_IMAGES = 60
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (NUM_IMAGES, 3), dtype=np.uint8)
"""Each image is of one colour, by which a screenshot can tell it from the others."""


def make_result(**changes):
    """Two known and three new classes; images 0 to 9 are labelled, image 30 is in the middle of the map."""
    points = RNG.uniform(-1, 1, (NUM_IMAGES, 2))
    points[np.abs(points).max(axis=1) < 0.1] = 0.5
    points[30], points[31], points[32] = 0, -1, 1
    fields = {
        'title': 'My <b>images</b> & more',
        'paths': [*(f'known/{i}.png' for i in range(10)), *ODD_NAMES, *(f'new/{i}.png' for i in range(40))],
        'pictures': list(np.broadcast_to(COLOURS[:, None, None], (NUM_IMAGES, 16, 16, 3))),
        'known_names': ['=known "a"', '<b>known</b>'],
        'novel_names': ['new 1', 'new 2', 'new 3'],
        'labels': np.array([0, 1] * 5 + [2, 3, 4, 0, 1] * 10),
        'confidence': RNG.uniform(0.2, 1, NUM_IMAGES),
        'distance': RNG.exponential(1e-3, NUM_IMAGES),
        'is_labelled': np.arange(NUM_IMAGES) < 10,
        'points': points,
        'relation_NK': np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]),
        'curves': {'loss': [(0, 2.0), (1, 1.0)]},
        'class_count': ClassCount([2, 3, 4], [0.5, 0.8, 0.7], [0.1, 0.05, 0.1], 3, 'accuracy'),
        'broken': [('<i>broken</i>.png', 'truncated')],
        'settings': {'seed': 0},
    }
    return DiscoveryResult(**{**fields, **changes})


@pytest.fixture(scope='module')
def result():
    return make_result()


@pytest.fixture(scope='module')
def report(result, tmp_path_factory):
    path = tmp_path_factory.mktemp('a report #1') / 'report 100%.html'
    write_html_report(result, path)
    return path


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp('profile'))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, report, tmp_path):
    page = Page(browser, tmp_path)
    page.open(report)
    yield page
    assert page.problems() == []
    assert page.requests() <= {'file', 'blob'}


def table(content, encoding='utf-8'):
    rows = list(csv.reader(io.StringIO(content.decode(encoding, errors='surrogateescape'), newline='')))
    assert rows[0] == ['path', 'cluster', 'confidence', 'distance']
    return rows[1:]


def clusters(page):
    """The class of each image without label, as downloaded."""
    page.click('#download-csv')
    return [row[1] for row in table(page.downloaded('assignments.csv'))]


def expected_clusters(result, **renamed):
    names = {name: renamed.get(name.replace(' ', '_'), name) for name in result.class_names}
    return [names[result.class_names[label]] for label in result.labels[10:].tolist()]


def names_shown(page):
    return page.evaluate('[...document.querySelectorAll(".card h3")].map((heading) => heading.textContent)')


def status(page):
    return page.evaluate('document.getElementById("status").textContent')


def focused(page):
    return page.evaluate('document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent')


def rename(page, cls, name):
    page.click(f'#class-{cls} .buttons button:first-child')
    page.type(name)
    page.click('#rename-dialog .primary')


def merge(page, cls, into):
    page.click(f'#class-{cls} .buttons button:last-child')
    page.evaluate(f'document.getElementById("merge-select").value = {into}')
    page.click('#merge-dialog .primary')


def test_gallery_shows_the_right_pictures_the_most_confident_first(page, result, tmp_path):
    page.wait_for('document.querySelectorAll("#class-3 .tile").length === 10')
    shown = page.evaluate('[...document.querySelectorAll("#class-3 .tile")].map((tile) => Number(tile.dataset.image))')
    members = np.flatnonzero((result.labels == 3) & ~result.is_labelled)
    assert shown == members[np.argsort(-result.confidence[members])].tolist()
    page.evaluate('document.getElementById("class-3").scrollIntoView({block: "center", behavior: "instant"})')
    boxes = page.evaluate(
        '[...document.querySelectorAll("#class-3 .tile .thumbnail")].map((box) => box.getBoundingClientRect())'
        '.map((box) => [box.x + box.width / 2, box.y + box.height / 2])'
    )
    page.evaluate('new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))')  # pictures are decoded
    page.screenshot(tmp_path / 'page.png')
    with Image.open(tmp_path / 'page.png') as picture:
        found = np.array([picture.convert('RGB').getpixel((round(x), round(y))) for x, y in boxes], dtype=float)
    # WebP keeps the colour of a tile to a few levels; others differ by far more.
    np.testing.assert_allclose(found, COLOURS[shown], atol=12)


def test_names_are_shown_and_never_executed(page):
    labels = page.evaluate('(document.getElementById("filter").value = "all", 0)')
    page.evaluate('document.getElementById("filter").dispatchEvent(new Event("change"))')
    for cls in range(5):
        page.evaluate(f'document.getElementById("class-{cls}").scrollIntoView({{behavior: "instant"}})')
        page.wait_for(f'document.querySelectorAll("#class-{cls} .tile").length === 10')
    labels = page.evaluate('[...document.querySelectorAll("#cards .tile")].map((tile) => tile.ariaLabel)')
    for name in (*ODD_NAMES[:5], ODD_NAMES[7], ODD_NAMES[9]):
        assert any(label.startswith(f'{name}, ') for label in labels), name
    assert any(label.startswith('line␍␊break, and "quotes".png') for label in labels)
    assert names_shown(page)[:2] == ['=known "a"', '<b>known</b>']
    assert page.evaluate('document.querySelector("h1").textContent') == 'My <b>images</b> & more'
    assert page.evaluate('document.title') == 'My <b>images</b> & more'
    assert '<i>broken</i>.png' in page.evaluate('document.getElementById("broken").textContent')
    assert page.evaluate('window.attacked') is None


def test_without_corrections_the_download_is_the_table_of_python(page, result, tmp_path):
    write_assignments_csv(result, tmp_path / 'python.csv')
    page.click('#download-csv')
    assert page.downloaded('assignments.csv') == (tmp_path / 'python.csv').read_bytes()


def test_rename_merge_move_undo_and_redo_change_the_download(page, result):
    rename(page, 2, 'a, "moth"')
    assert clusters(page) == expected_clusters(result, new_1='a, "moth"')
    merge(page, 3, 2)
    assert names_shown(page) == ['a, "moth"', 'new 3']
    assert clusters(page) == expected_clusters(result, new_1='a, "moth"', new_2='a, "moth"')
    merge(page, 4, 1)
    both = expected_clusters(result, new_1='a, "moth"', new_2='a, "moth"', new_3='<b>known</b>')
    assert clusters(page) == both

    page.wait_for('document.querySelector("#class-2 .tile")')
    image = page.evaluate('Number(document.querySelector("#class-2 .tile").dataset.image)')
    page.click('#class-2 .tile')
    page.evaluate('document.getElementById("move-select").value = 0')
    page.evaluate('document.getElementById("move-select").dispatchEvent(new Event("change"))')
    page.click('#image-dialog .cancel')
    moved = [*both]
    moved[image - 10] = '=known "a"'
    assert clusters(page) == moved

    page.click('#undo')
    assert clusters(page) == both
    page.click('#undo')
    page.click('#undo')
    assert names_shown(page) == ['a, "moth"', 'new 2', 'new 3']
    assert clusters(page) == expected_clusters(result, new_1='a, "moth"')
    page.click('#redo')
    assert clusters(page) == expected_clusters(result, new_1='a, "moth"', new_2='a, "moth"')
    page.click('#undo')
    page.click('#undo')
    assert page.evaluate('document.getElementById("undo").disabled')
    assert clusters(page) == expected_clusters(result)


@pytest.mark.parametrize(('name', 'reason'), [('new 2', 'Another class has this name'), ('  ', 'Please type a name')])
def test_an_impossible_name_is_refused_with_the_reason(page, result, name, reason):
    rename(page, 2, name)
    assert reason in page.evaluate('document.querySelector("#rename-dialog .problem").textContent')
    page.press('Escape')
    assert names_shown(page) == ['new 1', 'new 2', 'new 3']


def test_everything_can_be_done_with_the_keyboard(page, result):
    for _ in range(40):
        page.press('Tab')
        if focused(page) == 'Rename new 1':
            break
    page.press('Enter')
    page.type('moth')
    page.press('Enter')
    assert (focused(page), names_shown(page)[0]) == ('moth', 'moth')
    page.press('z', CONTROL)
    assert names_shown(page)[0] == 'new 1'
    assert 'Undone' in status(page)

    page.wait_for('document.querySelectorAll("#class-2 .tile").length === 10')
    page.evaluate('document.querySelector("#class-2 .buttons button:last-child").focus()')
    page.press('Tab')
    first = focused(page)
    page.press('ArrowRight')
    second = focused(page)
    assert first != second
    page.press('Enter')
    path = result.paths[page.evaluate('Number(document.querySelectorAll("#class-2 .tile")[1].dataset.image)')]
    assert page.evaluate('document.getElementById("image-path").textContent') == path
    page.press('ArrowLeft')
    assert page.evaluate('document.getElementById("image-path").textContent') != path
    page.press('Escape')
    assert focused(page) == second
    page.press('Tab')
    assert page.evaluate('document.activeElement.closest(".tiles")') is None  # one tab stop per gallery

    page.evaluate('document.getElementById("map-canvas").focus()')
    page.press('ArrowRight')
    assert status(page).startswith(result.paths[30])
    page.press('ArrowRight')
    assert not status(page).startswith(result.paths[30])
    page.press('Enter')
    assert page.evaluate('document.getElementById("image-dialog").open')


def middle_of_map(page):
    page.evaluate('document.getElementById("map-canvas").scrollIntoView({block: "center", behavior: "instant"})')
    return page.evaluate(
        '(() => { const r = document.getElementById("map-canvas").getBoundingClientRect();'
        'return [r.x + r.width / 2, r.y + r.height / 2]; })()'
    )


def tip_of_map(page):
    page.wait_for('!document.getElementById("map-tip").hidden')
    return page.evaluate('document.getElementById("map-tip").textContent')


def test_the_map_shows_the_image_under_the_pointer_and_a_click_opens_it(page, result):
    place = middle_of_map(page)
    page.mouse('mouseMoved', *place)
    assert tip_of_map(page) == f'new 1{round(100 * result.confidence[30])} % certain'
    page.mouse('mousePressed', *place)
    page.mouse('mouseReleased', *place)
    assert page.evaluate('document.getElementById("image-path").textContent') == result.paths[30]


def test_a_finger_shows_an_image_with_the_first_tap_and_opens_it_with_the_second(page, result):
    page.resize(390, 844, is_phone=True)
    place = middle_of_map(page)
    page.tap(*place)
    assert tip_of_map(page).startswith('new 1')
    assert not page.evaluate('document.getElementById("image-dialog").open')
    page.tap(*place)
    page.wait_for('document.getElementById("image-dialog").open')
    assert page.evaluate('document.getElementById("image-path").textContent') == result.paths[30]


def test_corrections_outlive_the_page_and_travel_in_a_file(page, browser, result, report, tmp_path):
    rename(page, 2, 'moth')
    page.open(report)
    assert names_shown(page)[0] == 'moth'
    assert 'from last time' in status(page)
    page.click('#more summary')
    page.click('#save-corrections')
    saved = page.downloaded('corrections.json')

    other = Page(browser, tmp_path)
    other.open(report)
    assert names_shown(other)[0] == 'new 1'
    for name, content, answer in (
        ('text.json', b'no json', 'no corrections'),
        ('other.json', saved.replace(json.loads(saved)['report'].encode(), b'0'), 'another report'),
        ('wrong.json', saved.replace(b'"from": 2', b'"from": 0'), 'do not fit'),
        ('right.json', saved, 'Loaded 1 correction'),
    ):
        (tmp_path / name).write_bytes(content)
        other.choose_file('#corrections-file', tmp_path / name)
        other.wait_for(f'document.getElementById("status").textContent.includes({json.dumps(answer)})')
        assert names_shown(other)[0] == ('moth' if name == 'right.json' else 'new 1')
    assert clusters(other) == expected_clusters(result, new_1='moth')


def test_a_browser_that_keeps_nothing_says_so(browser, report, tmp_path):
    page = Page(browser, tmp_path)
    forbid = 'Object.defineProperty(window, "localStorage", {get() { throw new DOMException("no", "SecurityError"); }})'
    page.call('Page.addScriptToEvaluateOnNewDocument', source=forbid)
    page.open(report)
    rename(page, 2, 'moth')
    assert 'forgets' in status(page)
    assert names_shown(page)[0] == 'moth'
    assert page.problems() == []


def test_no_cell_for_spreadsheets_begins_like_a_formula(page, result):
    rename(page, 2, '@moth')
    page.click('#more summary')
    page.click('#download-spreadsheet')
    rows = table(page.downloaded('assignments_spreadsheet.csv'), 'utf-8-sig')
    cells = [cell for row in rows for cell in row]
    assert len(cells) == 4 * 50
    assert not [cell for cell in cells if cell[0] in '=+-@\t\r']
    assert [str(Path(row[0])) for row in rows] == [str(Path(path)) for path in result.paths[10:]]
    assert {row[1] for row in rows} == {'\'=known "a"', '<b>known</b>', "'@moth", 'new 2', 'new 3'}


def test_it_fits_a_phone_and_follows_dark_mode(page):
    light = page.evaluate('getComputedStyle(document.body).backgroundColor')
    page.use_media(prefers_color_scheme='dark')
    dark = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (light, dark) == ('rgb(253, 252, 250)', 'rgb(23, 25, 28)')
    page.resize(360, 740, is_phone=True)
    page.wait_for('document.documentElement.clientWidth === 360')
    assert page.evaluate('document.documentElement.scrollWidth') == 360
    too_small = page.evaluate(
        '[...document.querySelectorAll("button, select, summary")].filter((one) => one.offsetHeight)'
        '.filter((one) => one.getBoundingClientRect().height < 32).map((one) => one.outerHTML)'
    )
    assert too_small == []


@pytest.mark.parametrize('num_images', [0, 1])
def test_a_report_of_almost_nothing_opens(browser, tmp_path, num_images):
    few = {
        'paths': ['a.png'] * num_images,
        'pictures': [tmp_path / 'missing.png'] * num_images,
        'known_names': [],
        'novel_names': ['new 1'] * num_images,
        'relation_NK': None,
        'points': np.zeros((num_images, 2)),
        'labels': np.zeros(num_images, dtype=int),
        'confidence': np.ones(num_images),
        'distance': np.zeros(num_images),
        'is_labelled': np.zeros(num_images, dtype=bool),
        'curves': {},
        'class_count': None,
    }
    write_html_report(make_result(**few), tmp_path / 'report.html')
    page = Page(browser, tmp_path)
    page.open(tmp_path / 'report.html')
    page.click('#download-csv')
    assert len(table(page.downloaded('assignments.csv'))) == num_images
    assert page.problems() == []
    assert page.evaluate('document.getElementById("class-count")') is None
