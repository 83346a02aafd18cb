import numpy as np
import pytest
from PIL import Image

from mmkd_ext.datasets import MiniImageNet

NUM_CLASSES = {'train': 64, 'val': 16, 'test': 20}


def write(root, split, num_classes, header='filename,label'):
    """Two images of each class, interleaved; the first classes of the alphabet come last."""
    (root / 'images').mkdir(exist_ok=True)
    names = [f'n{label:08d}' for label in reversed(range(num_classes))]
    rows = [(f'{name}{number:08d}.jpg', name) for number in (1, 2) for name in names]
    for file, name in rows:
        Image.new('RGB', (4, 4), (int(name[1:]), 0, 0)).save(root / 'images' / file, quality=100)
    (root / f'{split}.csv').write_text('\n'.join([header, *(','.join(row) for row in rows)]) + '\n')


@pytest.mark.parametrize(('split', 'num_classes'), NUM_CLASSES.items())
def test_official_layout(split, num_classes, tmp_path):
    write(tmp_path, split, num_classes)
    dataset = MiniImageNet(str(tmp_path), split)
    assert len(dataset) == 2 * num_classes
    assert dataset.metainfo['classes'] == tuple(f'n{label:08d}' for label in range(num_classes))
    labels = list(reversed(range(num_classes))) * 2
    np.testing.assert_array_equal(dataset.get_gt_labels(), labels)
    for index in (0, 5, num_classes):
        with Image.open(dataset[index]['img_path']) as image:
            assert image.getpixel((0, 0))[0] == pytest.approx(labels[index], abs=2)
        assert dataset.get_cat_ids(index) == [labels[index]]


def test_unknown_split():
    with pytest.raises(ValueError, match=r"MiniImageNet: expected split in \('train', 'val', 'test'\) but got 'dev'"):
        MiniImageNet('nowhere', 'dev')


def test_no_split_file(tmp_path):
    write(tmp_path, 'val', 16)
    with pytest.raises(FileNotFoundError, match=r"expected test.csv in .* but got \['images', 'val.csv'\]; put"):
        MiniImageNet(str(tmp_path), 'test')
    with pytest.raises(FileNotFoundError, match=r'expected test.csv in .* but got no such folder'):
        MiniImageNet(str(tmp_path / 'nowhere'), 'test')


def test_missing_images(tmp_path):
    write(tmp_path, 'val', 16)
    for path in sorted((tmp_path / 'images').iterdir())[:3]:
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r'3 of 32 are missing, n0000000100000001.jpg for one; put all images'):
        MiniImageNet(str(tmp_path), 'val')


def test_a_file_of_another_split(tmp_path):
    write(tmp_path, 'val', 15)
    with pytest.raises(ValueError, match=r'MiniImageNet: expected 16 classes in .*val.csv but got 15 classes'):
        MiniImageNet(str(tmp_path), 'val')


@pytest.mark.parametrize('header', ['file,label', 'filename,class', 'file,class', ''])
def test_other_columns(tmp_path, header):
    write(tmp_path, 'val', 16, header)
    with pytest.raises(ValueError, match=r'columns filename and label in .*val.csv but got \[.*\]; write filename,'):
        MiniImageNet(str(tmp_path), 'val')


def test_an_empty_file(tmp_path):
    (tmp_path / 'val.csv').touch()
    with pytest.raises(ValueError, match=r'columns filename and label in .*val.csv but got None'):
        MiniImageNet(str(tmp_path), 'val')


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    write(tmp_path, 'val', 16)
    path = tmp_path / 'val.csv'
    path.write_text(path.read_text(), encoding='utf-8-sig')
    assert len(MiniImageNet(str(tmp_path), 'val')) == 32


@pytest.mark.parametrize('row', ['a.jpg', ',n00000000', 'a.jpg,'])
def test_incomplete_rows(tmp_path, row):
    write(tmp_path, 'val', 16)
    with (tmp_path / 'val.csv').open('a') as file:
        file.write(f'{row}\n')
    with pytest.raises(ValueError, match=r'filename and a label in each row .* got 1 rows without, row 33 for one'):
        MiniImageNet(str(tmp_path), 'val')
