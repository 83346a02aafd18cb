"""Cars196 on folders in both official layouts."""

import numpy as np
import pytest
from scipy import io

from mmkd_ext.datasets import Cars196

ROWS = [('1.jpg', 1), ('2.jpg', 98), ('3.jpg', 99), ('4.jpg', 196)]


def write(path, field, rows):
    annotations = np.zeros((1, len(rows)), dtype=[(field, 'O'), ('class', 'O'), ('test', 'O')])
    for number, (name, label) in enumerate(rows):
        annotations[0, number] = name, np.int16(label), number % 2
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {'annotations': annotations})


def one_folder(root):
    write(root / 'cars_annos.mat', 'relative_im_path', [(f'car_ims/{name}', label) for name, label in ROWS])
    (root / 'car_ims').mkdir()
    return [root / 'car_ims' / name for name, _ in ROWS]


def two_folders(root):
    write(root / 'devkit' / 'cars_train_annos.mat', 'fname', ROWS[::2])
    write(root / 'devkit' / 'cars_test_annos_withlabels.mat', 'fname', ROWS[1::2])
    paths = [root / folder / ROWS[number][0] for number, folder in enumerate(['cars_train', 'cars_test'] * 2)]
    for folder in ('cars_train', 'cars_test'):
        (root / folder).mkdir()
    return paths


@pytest.mark.parametrize('layout', [one_folder, two_folders])
def test_halves_of_the_models(tmp_path, layout):
    paths = layout(tmp_path)
    for path in paths:
        path.touch()
    for split, expected in (('train', {0: paths[0], 97: paths[1]}), ('test', {98: paths[2], 195: paths[3]})):
        cars = Cars196(str(tmp_path), split=split)
        infos = [cars.get_data_info(index) for index in range(len(cars))]
        assert {info['gt_label']: info['img_path'] for info in infos} == {k: str(v) for k, v in expected.items()}


def test_one_image(tmp_path):
    write(tmp_path / 'cars_annos.mat', 'relative_im_path', [('a.jpg', 5)])
    (tmp_path / 'a.jpg').touch()
    assert Cars196(str(tmp_path), split='train').get_gt_labels().tolist() == [4]


def test_wrong_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'Cars196: expected in .* cars_annos.mat and car_ims/, or devkit/'):
        Cars196(str(tmp_path), split='train')
    one_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'expected in .* the image car_ims/1.jpg of the annotations but got'):
        Cars196(str(tmp_path), split='train')


@pytest.mark.parametrize('content', [b'', b'not a Matlab file' * 100])
def test_unreadable_annotations(tmp_path, content):
    (tmp_path / 'cars_annos.mat').write_bytes(content)
    with pytest.raises(ValueError, match=r'expected annotations with relative_im_path and class in .*annos.mat'):
        Cars196(str(tmp_path), split='train')


def test_annotations_of_another_kind(tmp_path):
    write(tmp_path / 'cars_annos.mat', 'fname', ROWS)
    with pytest.raises(ValueError, match='expected annotations with relative_im_path and class'):
        Cars196(str(tmp_path), split='train')


@pytest.mark.parametrize('label', [0, -1, 197, 500])
def test_class_out_of_range(tmp_path, label):
    write(tmp_path / 'cars_annos.mat', 'relative_im_path', [('a.jpg', 5), ('b.jpg', label)])
    with pytest.raises(ValueError, match=rf"Cars196: expected class numbers from 1 to 196 in .* got \['{label}'\]"):
        Cars196(str(tmp_path), split='train')


def test_split_without_images(tmp_path):
    write(tmp_path / 'cars_annos.mat', 'relative_im_path', [('a.jpg', 5)])
    with pytest.raises(ValueError, match=r"Cars196: expected images of split 'test' in the annotations in .* got none"):
        Cars196(str(tmp_path), split='test')
