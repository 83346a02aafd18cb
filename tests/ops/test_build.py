"""A small C file through compiler and cache: built once, by its content, for this user alone."""

import ctypes
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmkd_ext.ops import build
from mmkd_ext.ops.build import build_library

pytestmark = pytest.mark.skipif(not (shutil.which('cc') or shutil.which('gcc')), reason='needs a C compiler')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'mmkd_ext'


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'answer.c'
    path.write_text('int answer(void) { return ANSWER; }')
    return path


def answer(library):
    return ctypes.CDLL(str(library)).answer()


def test_what_is_built_depends_on_the_definitions_and_on_the_source(cache, source):
    first = build_library(source, ['ANSWER=41'])
    second = build_library(source, ['ANSWER=42'])
    source.write_text('int answer(void) { return -ANSWER; }')
    third = build_library(source, ['ANSWER=42'])
    assert [answer(library) for library in (first, second, third)] == [41, 42, -42]
    assert sorted(cache.iterdir()) == sorted([first, second, third])
    assert cache.stat().st_mode & 0o777 == 0o700


def test_built_once(cache, source, monkeypatch):
    library = build_library(source, ['ANSWER=1'])
    monkeypatch.setattr(build, '_compile', lambda *_: pytest.fail('built again'))
    assert build_library(source, ['ANSWER=1']) == library


def test_processes_that_build_at_the_same_time(cache, source):
    with ThreadPoolExecutor(4) as pool:
        libraries = set(pool.map(lambda _: build_library(source, ['ANSWER=7']), range(4)))
    assert list(cache.iterdir()) == list(libraries)
    assert answer(libraries.pop()) == 7


def test_a_flag_that_the_compiler_does_not_know_is_left_out(cache, source, monkeypatch):
    monkeypatch.setattr(build, '_TARGETS', (['-march=abacus'], []))
    assert answer(build_library(source, ['ANSWER=3'])) == 3


def test_no_compiler(cache, source, monkeypatch):
    monkeypatch.setenv('PATH', '')
    monkeypatch.delenv('CC', raising=False)
    with pytest.raises(OSError, match='build_library: expected a C compiler but found none'):
        build_library(source)


def test_what_does_not_compile(cache, source):
    with pytest.raises(OSError, match=r'build_library: expected .* to compile answer.c but it failed: .*ANSWER'):
        build_library(source)
    assert not list(cache.iterdir())


def test_a_folder_that_others_can_write_to_is_not_trusted(cache, source):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(OSError, match=r'build_library: expected .* to be writable by its owner alone'):
        build_library(source, ['ANSWER=1'])
