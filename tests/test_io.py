"""Files are there whole or not at all, with the permissions of any new file; digests are those of ``hashlib``."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmkd_ext import io


def test_writes_what_a_plain_write_does(tmp_path):
    old = os.umask(0o027)
    try:
        (tmp_path / 'plain').write_text('déjà\r\nvu', encoding='utf-8', newline='')
        io.write_text(tmp_path / 'text', 'déjà\r\nvu')
        io.write_bytes(str(tmp_path / 'bytes'), 'déjà\r\nvu'.encode())
    finally:
        os.umask(old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bytes', 'plain', 'text']
    assert len({(path.read_bytes(), path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


def test_an_error_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    io.write_text(path, 'old')
    for place in ('write', 'fsync', 'replace'):
        with monkeypatch.context() as patch:
            patch.setattr(os if place != 'write' else Path, place.replace('write', 'write_bytes'), lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                io.write_text(path, 'new')
        assert path.read_text() == 'old'


def test_who_is_killed_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / 'a'
    io.write_text(path, 'old')
    kill = 'import os, signal; from mmkd_ext.io import replacing\n'
    kill += f'with replacing({str(path)!r}) as p:\n    p.write_text("ne"); os.kill(os.getpid(), signal.SIGKILL)'
    assert subprocess.run([sys.executable, '-c', kill], check=False).returncode < 0
    assert path.read_text() == 'old'
    io.write_text(path, 'new')  # what was left over is in nobody's way
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [('a', 'new')]


def test_digest_of_text_bytes_parts_and_files(tmp_path):
    expected = hashlib.sha256('déjà vu'.encode()).hexdigest()
    (tmp_path / 'file').write_text('déjà vu', encoding='utf-8')
    parts = ('déjà '.encode(), b'v', b'u')
    for content in ('déjà vu', b''.join(parts), iter(parts), tmp_path / 'file'):
        assert io.sha256(content) == expected


def test_log_of_several_starts(tmp_path):
    entries = [{'step': 1, 'lr': 0.1}, {'step': 2, 'loss': 3.0}, {'step': 2, 'loss': 2.0}]
    first, second = tmp_path / '1' / 'vis_data' / 'scalars.json', tmp_path / '2' / 'vis_data' / 'scalars.json'
    for log, lines in ((first, [*map(json.dumps, entries[:2]), '{"step": 3, "lo']), (second, [json.dumps(entries[2])])):
        log.parent.mkdir(parents=True)
        log.write_text('\n'.join(lines))
    assert io.read_scalars(tmp_path) == entries
    second.write_text('no json\n' + json.dumps(entries[2]))
    with pytest.raises(json.JSONDecodeError):
        io.read_scalars(tmp_path)
    assert io.read_scalars(tmp_path / 'empty') == []


def test_columns_of_a_table_are_aligned():
    lines = io.table(('a', 'bb', 'n'), [('longer', 'x', '1'), ('y', 'z', '10')], right=[2]).splitlines()
    assert lines == ['  a       bb   n', '  longer  x    1', '  y       z   10']
