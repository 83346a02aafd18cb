"""CSV files as spreadsheets, pandas and people write them."""

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets.folder_images import scan
from mmkd_ext.datasets.image_lists import read_list


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ('cat', 'dog', 'all'):
        (tmp_path / kind).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / kind / f'{number}.png')
    return tmp_path


def write(photos, text, encoding='utf-8'):
    (photos / 'list.csv').write_bytes(text.encode(encoding))
    return str(photos / 'list.csv')


ROWS = (('cat/0.png', 'cat'), ('cat/1.png', 'cat'), ('dog/0.png', 'dog'))


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t', '|'])
@pytest.mark.parametrize('header', [('path', 'label'), ('Path', 'LABEL'), (' path', 'label ')])
def test_any_spreadsheet_writes_the_same_list(photos, encoding, delimiter, header):
    text = '\r\n'.join(delimiter.join(row) for row in (header, *ROWS))
    found = read_list(write(photos, text, encoding), ('path', 'label'))
    assert [(file.written, file.label) for file in found.files] == list(ROWS)
    assert found.notes == []


def test_a_line_for_the_spreadsheet_alone_is_passed_over(photos):
    found = read_list(write(photos, 'sep=;\npath;label\ncat/0.png;cat\n'), ('path', 'label'))
    assert [(file.line, file.label) for file in found.files] == [(3, 'cat')]


def test_labels_lose_their_spaces_and_none_is_none(photos):
    text = 'path,label\ncat/0.png, cat\ncat/1.png,cat  \ndog/0.png,\ndog/1.png,nan\ndog/2.png,None\nall/0.png,none\n'
    found = read_list(write(photos, text), ('path', 'label'))
    assert [file.label for file in found.files] == ['cat', 'cat', None, None, None, 'none']
    assert found.notes == [f"3 lines of {photos / 'list.csv'} have no label ('', 'None', 'nan'): unlabelled images"]


def test_repeated_rows_count_once_and_contradictions_are_named_with_their_lines(photos):
    found = read_list(write(photos, 'path,label\ncat/0.png,cat\n./cat/0.png,cat\n,cat\n\n'), ('path', 'label'))
    assert len(found.files) == 1
    assert [note.split()[0] for note in found.notes] == ['1', '1']
    for text in ('cat/0.png,cat\ncat/0.png,dog\n', 'cat/0.png,cat\ncat/0.png,\n'):
        with pytest.raises(
            ValueError, match=r"one label for each image but 'cat/0.png' has 'cat' in line 2 and .* line 3"
        ):
            read_list(write(photos, f'path,label\n{text}'), ('path', 'label'))


@pytest.mark.parametrize(
    ('written', 'remedy'),
    [
        ('cat\\0.png', 'write / in their place'),
        ('photos/0.png', 'begin at the folder of the list'),
        ('{}', 'working dir'),
    ],
)
def test_paths_that_lead_nowhere_are_the_cause(photos, monkeypatch, written, remedy):
    monkeypatch.chdir(photos / 'cat')
    name = write(photos, f'path,label\n{written.format("0.png")},cat\n')
    with pytest.raises(ValueError, match='two known classes') as raised:
        scan(name, str(photos / 'all'))
    assert '1 of 1 images' in str(raised.value)
    assert 'line 2' in str(raised.value)
    assert remedy in str(raised.value)


def test_spaces_around_a_path_are_cut_off_unless_the_file_has_them(photos):
    Image.new('L', (8, 8)).save(photos / ' x.png')
    found = read_list(write(photos, 'path\ncat/0.png \n" x.png"\n'), ('path',))
    assert [file.path for file in found.files] == [str(photos / 'cat/0.png'), str(photos / ' x.png')]


def test_unlabelled_rows_of_a_labelled_list_are_unlabelled_images(photos):
    name = write(photos, 'path,label\ncat/0.png,cat\ndog/0.png,dog\nall/0.png,\nall/1.png,nan\n')
    for unlabelled, number in ((name, 2), (str(photos / 'all'), 3)):
        images = scan(name, unlabelled)
        assert images.classes == ['cat', 'dog']
        assert sum(label < 0 for label in images.labels) == number


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (b'PK\3\4\0\0\0\0', 'is no text'),
        (b'', r"columns \['path', 'label'\]"),
        (b'file;class\nx;y\n', r"but got \['file', 'class'\]"),
        (b'path,label\n"x,' + b'y' * 200_000, 'line 2 is none: field larger'),
    ],
)
def test_what_is_no_list_is_named(photos, content, match):
    (photos / 'list.csv').write_bytes(content)
    with pytest.raises(ValueError, match=match):
        read_list(str(photos / 'list.csv'), ('path', 'label'))
