import csv
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from mmkd_ext.visualization import DiscoveryResult, write_assignments_csv

PATHS = [
    'labelled.png',
    'plain.png',
    ' spaces and, commas .png',
    'quotes " and \'.png',
    'line\nbreak\r\n.png',
    '漢字 \U0001f98b \u2028.png',
    '=1+1.png',
    '@a/b.png',
    '/absolute/-1.png',
]


@pytest.fixture
def result():
    count = len(PATHS)
    return DiscoveryResult(
        title='',
        paths=PATHS,
        pictures=PATHS,
        known_names=['a "known", one'],
        novel_names=['new 1'],
        labels=np.arange(count) % 2,
        confidence=np.linspace(0, 1, count),
        distance=10.0 ** np.arange(-count + 3, 3),
        is_labelled=np.arange(count) == 0,
    )


def test_rows_come_back_as_they_were(result, tmp_path):
    write_assignments_csv(result, tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
        head, *rows = csv.reader(file, strict=True)
    assert head == ['path', 'cluster', 'confidence', 'distance']
    assert [row[0].removeprefix('./') for row in rows] == PATHS[1:]
    assert [row[1] for row in rows] == ['new 1', 'a "known", one'] * 4
    np.testing.assert_allclose([float(row[2]) for row in rows], result.confidence[1:], atol=5e-5)
    np.testing.assert_allclose([float(row[3]) for row in rows], result.distance[1:], rtol=5e-6)


def test_a_path_like_a_formula_is_none_and_still_names_the_same_file(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '=1+1.png').write_text('content')
    write_assignments_csv(result, tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
        paths = [row['path'] for row in csv.DictReader(file)]
    assert not [path for path in paths if path[0] in '=+-@\t\r']
    assert Path(paths[PATHS.index('=1+1.png') - 1]).read_text() == 'content'
    assert paths[-1] == PATHS[-1]


def test_a_name_that_is_no_unicode_keeps_its_bytes(result, tmp_path):
    name = b'caf\xe9 \xff.png'
    odd = dataclasses.replace(result, paths=[*PATHS[:-1], os.fsdecode(name)])
    write_assignments_csv(odd, tmp_path / 'a.csv')
    assert b'\r\n"' + name + b'","' in (tmp_path / 'a.csv').read_bytes()
