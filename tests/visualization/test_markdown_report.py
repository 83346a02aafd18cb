"""The folder of a report: numbers, figures, words."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.visualization import (
    Assignment,
    CurveHistory,
    Discovery,
    console_summary,
    history_figure,
    report_figures,
    write_assignments,
    write_markdown,
    write_metrics,
    write_problem,
    write_report,
)

# --------------------------------------------------------------------------------------------------
# Report.


@pytest.fixture
def arguments():
    rows = [Assignment(i, 'train', 1 + i % 2, i % 2, 0, 0.9, 0.5) for i in range(10)]
    embeddings = {'train': (np.arange(10), np.random.default_rng(0).normal(size=(10, 3)))}
    history = CurveHistory({'losses': {'loss': [[1, 2.0], [2, 1.0]]}})
    return {
        'discovery': Discovery(rows, ('ant', 'bee', 'cat'), 1, 2, embeddings),
        'split': 'train',
        'metrics': {'train/novel_acc': 100.0, 'train/novel_acc_best': 100.0},
        'settings': {'config': 'uno'},
        'history': history,
        'images_per_class': 3,
        'read_image': lambda position: np.zeros((4, 4, 3), dtype=np.uint8),
    }


def test_pictures_on_disk_are_those_shown(tmp_path, arguments):
    shown = {}
    write_report(tmp_path, show=lambda name, pixels: shown.update({name: pixels}), **arguments)
    assert set(shown) == {'confusion', 'gallery', 'embedding_map', 'curves'}
    for name, pixels in shown.items():
        with Image.open(tmp_path / f'{name}.png') as picture:
            np.testing.assert_array_equal(np.asarray(picture.convert('RGB')), pixels)
        assert f']({name}.png)' in (tmp_path / 'report.md').read_text()


def test_numbers_are_safe_when_a_picture_fails(tmp_path, arguments):
    def fail(position):
        raise FileNotFoundError(position)

    with pytest.raises(FileNotFoundError):
        write_report(tmp_path, show=lambda name, pixels: None, **{**arguments, 'read_image': fail})
    assert {path.name for path in tmp_path.iterdir()} == {'metrics.json', 'assignments.csv'}


def test_folder_is_made_and_left_empty(tmp_path):
    assert write_problem(tmp_path / 'a' / 'b') is None
    assert list((tmp_path / 'a' / 'b').iterdir()) == []


def test_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'Not a directory' in write_problem(tmp_path / 'file' / 'report')


# --------------------------------------------------------------------------------------------------
# Report text.


METRICS = {'train/novel_acc': 75.0, 'train/novel_acc_best': 80.0, 'train/novel_acc_heads': [70.0, 80.0], 'train/x': 1.0}
SETTINGS = {'config': 'uno_digits', 'seed': 3, 'checkpoint': None}


def discovery():
    rows = [Assignment(i + 40, 'train', 1 + i % 2, i % 2, 0, 0.123456, 0.5) for i in range(3)]
    rows.append(Assignment(43, 'train', 1, 2, 0, 0.5, 0.5))
    return Discovery(rows, ('ant', 'bee, "B"', 'cat'), 1, 4, {})


def test_assignments(tmp_path):
    write_assignments(tmp_path / 'a.csv', discovery())
    with (tmp_path / 'a.csv').open() as file:
        header, *rows = list(csv.reader(file))
    assert header == ['sample_idx', 'split', 'cluster', 'matched_class', 'confidence', 'true_class']
    assert rows[0] == ['40', 'train', 'cluster 0', 'bee, "B"', '0.1235', 'bee, "B"']
    assert rows[1] == ['41', 'train', 'cluster 1', 'cat', '0.1235', 'cat']
    assert rows[3][2:4] == ['cluster 2', '']
    assert len(rows) == 4


def test_metrics_are_json(tmp_path):
    write_metrics(tmp_path / 'm.json', {**METRICS, 'a': np.float32(0.5)}, SETTINGS)
    content = json.loads((tmp_path / 'm.json').read_text())
    assert content == {'metrics': {**METRICS, 'a': 0.5}, 'settings': SETTINGS}


def test_page_has_numbers_pictures_and_settings(tmp_path):
    write_markdown(tmp_path / 'r.md', discovery(), METRICS, SETTINGS, ['confusion_test.png', 'gallery.png'])
    page = (tmp_path / 'r.md').read_text()
    assert page.startswith('# Discovery report: uno_digits\n')
    assert 'Known classes: 1. Novel classes: 2. Clusters: 4.' in page
    assert '## train: 4 images' in page
    assert re.search(r'\| `novel_acc` \| 75\.00 \| 80\.00 \| .+ \|', page)
    assert re.findall(r'!\[\w+\]\((.+?)\)', page) == ['confusion_test.png', 'gallery.png']
    assert '| seed | `3` |' in page


def test_console_summary():
    text = console_summary(discovery(), METRICS, Path('work/report'))
    assert 'train: 75.0% of 4 images in the right class (best head), 75.0% as mean over heads' in text
    assert 'train: 1 of 4 clusters are empty' in text
    assert text.endswith('Report: work/report/report.md')
    assert len(text.splitlines()) <= 6


# --------------------------------------------------------------------------------------------------
# Report figures.


NAMES = ('ant', 'bee', 'cat', 'dog')


def make_discovery(train_clusters=(1, 1, 1, 1, 1, 1, 0, 0), has_test=True):
    train = [Assignment(i, 'train', 2 + i // 6, c, 0, 1 - i / 10, 0.5) for i, c in enumerate(train_clusters)]
    test = [Assignment(i, 'test', i % 4, 0, i % 4, 0.5, 0.9) for i in range(12)] if has_test else []
    points = {
        name: (np.arange(len(rows)) + start, np.random.default_rng(0).normal(size=(len(rows), 5)))
        for name, rows, start in (('train', train, 0), ('test', test, len(train)))
    }
    return Discovery([*train, *test], NAMES, 2, 2, points)


def draw(discovery, images_per_class=3):
    read = []

    def read_image(position):
        read.append(position)
        return np.zeros((4, 4, 3), dtype=np.uint8)

    figures = dict(report_figures(discovery, 'train', images_per_class=images_per_class, read_image=read_image))
    return figures, read


def test_figures_of_all_splits():
    figures, _ = draw(make_discovery())
    assert list(figures) == ['confusion', 'confusion_test', 'gallery', 'embedding_map']
    titles = [figure.texts[0].get_text() for figure in figures.values()]
    assert titles == [
        'Discovered and true classes: train, novel head alone',
        'Discovered and true classes: test, known and novel classes',
        'Discovered classes: train',
        'Embedding map: test',
    ]


def test_gallery_shows_most_and_least_confident_members():
    _, read = draw(make_discovery(), images_per_class=3)
    # Cluster 1 is 'cat' (positions 0..5, ever less confident), cluster 0 is 'dog' (positions 6, 7).
    assert read == [0, 1, 5, 6, 7]


def test_map_falls_back_to_the_split_of_novel_classes():
    figures, _ = draw(make_discovery(has_test=False))
    assert figures['embedding_map'].texts[0].get_text() == 'Embedding map: train'
    assert list(figures) == ['confusion', 'gallery', 'embedding_map']


def test_empty_clusters_have_no_row():
    figures, _ = draw(make_discovery(train_clusters=(1,) * 8))
    texts = [text.get_text() for text in figures['gallery'].axes[0].texts]
    assert 'cluster 1: 75% of 8 images' in texts
    assert not any('cluster 0' in text for text in texts)


def test_curves_are_named_for_people_and_a_lone_term_is_not_drawn_twice():
    history = CurveHistory()
    history.add_losses(1.0, {'loss': 2.0, 'loss_cluster': 2.0})
    history.add_metrics(1.0, {'test/v2_novel': 50.0, 'train/novel_acc': 60.0})
    upper, lower = history_figure(history, 'Run').axes
    assert [line.get_label() for line in upper.lines] == ['loss_cluster']
    assert [line.get_label() for line in lower.lines] == ['test novel', 'train novel (task-aware)']


def test_sum_of_several_terms_is_drawn():
    history = CurveHistory()
    history.add_losses(1.0, {'loss': 3.0, 'loss_cluster': 2.0, 'loss_crkd': 1.0})
    assert [line.get_label() for line in history_figure(history, '').axes[0].lines] == [
        'loss',
        'loss_cluster',
        'loss_crkd',
    ]


def test_no_curves_without_training():
    assert history_figure(CurveHistory(), '') is None


@pytest.mark.parametrize('images_per_class', [1, 4, 20])
def test_no_image_is_shown_twice(images_per_class):
    _, read = draw(make_discovery(), images_per_class)
    assert len(read) == len(set(read)) <= 2 * images_per_class
