import numpy as np
import pytest
from PIL import Image

from mmkd_ext.visualization import Assignment, CurveHistory, Discovery, write_problem, write_report


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
