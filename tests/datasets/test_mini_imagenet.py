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


@pytest.mark.parametrize(('num_classes', 'header', 'found'), [(15, 'filename,label', 15), (16, 'file,class', 0)])
def test_a_file_of_another_split(num_classes, header, found, tmp_path):
    write(tmp_path, 'val', num_classes, header)
    with pytest.raises(
        ValueError, match=f'columns filename and label with 16 classes in .*val.csv but got {found} classes'
    ):
        MiniImageNet(str(tmp_path), 'val')
