import csv
import json
import re
from pathlib import Path

import numpy as np

from mmkd_ext.visualization import (
    Assignment,
    Discovery,
    console_summary,
    write_assignments,
    write_markdown,
    write_metrics,
)

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
