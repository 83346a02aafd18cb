import os

import pytest
from mmengine.fileio import get_file_backend

from mmkd_ext.checkpoint import ATOMIC


@pytest.fixture
def backend():
    return get_file_backend(backend_args={'backend': ATOMIC})


def test_writes_bytes_and_text(backend, tmp_path):
    backend.put(b'\x00\x01', tmp_path / 'new' / 'a.pth')
    backend.put_text('déjà vu', tmp_path / 'text')
    assert (tmp_path / 'new' / 'a.pth').read_bytes() == b'\x00\x01'
    assert (tmp_path / 'text').read_text(encoding='utf-8') == 'déjà vu'
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['a.pth', 'new', 'text']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_whoever_dies_before_the_end_leaves_the_old_file(backend, tmp_path, monkeypatch, step):
    path = tmp_path / 'a.pth'
    backend.put(b'old', path)
    monkeypatch.setattr(os, step, lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.put(b'new', path)
    assert path.read_bytes() == b'old'
    assert not [file for file in tmp_path.glob('*.pth') if file != path]
