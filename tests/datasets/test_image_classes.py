"""The common base: labels, errors that say what was expected where."""

import numpy as np
import pytest

from mmkd_ext.datasets.image_classes import ImageClasses


class Shelf(ImageClasses):
    def load_images(self, root):
        if not (root / 'list.txt').is_file():
            raise self.wrong_layout(root, 'list.txt and images/')
        rows = self.read_lines(root / 'list.txt', num_words=2)
        return [row[0] for row in rows], self.labels_of_words([row[1] for row in rows], root / 'list.txt', 9)


def write(root, text, images=('a.jpg', 'b.jpg')):
    (root / 'list.txt').write_text(text)
    for name in images:
        (root / name).touch()
    return str(root)


def test_samples_and_labels(tmp_path):
    shelf = Shelf(write(tmp_path, 'a.jpg 3\n\nb.jpg 1\n'), split='train')
    assert [shelf.get_data_info(index)['gt_label'] for index in range(2)] == [2, 0]
    assert shelf.get_data_info(1)['img_path'] == str(tmp_path / 'b.jpg')
    np.testing.assert_array_equal(shelf.get_gt_labels(), [2, 0])
    assert shelf.get_cat_ids(0) == [2]


def test_part_of_a_split_and_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path.parent))
    write(tmp_path, 'a.jpg 3\nb.jpg 1\n')
    shelf = Shelf(f'~/{tmp_path.name}', split='test', indices=[1])
    np.testing.assert_array_equal(shelf.get_gt_labels(), [0])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a.jpg 1\nb.jpg\n', r"Shelf: expected 2 words in line 2 of .*list.txt but got 'b.jpg'"),
        ('a.jpg x\nb.jpg 0\n', r"Shelf: expected class numbers from 1 to 9 in .*list.txt but got \['x', '0'\]"),
        ('a.jpg 9\nb.jpg 10\n', r"Shelf: expected class numbers from 1 to 9 in .*list.txt but got \['10'\]"),
        ('', r"Shelf: expected images of split 'train' in the annotations in .* but got none; unpack"),
    ],
)
def test_unreadable_list(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        Shelf(write(tmp_path, text), split='train')


def test_wrong_layout(tmp_path):
    (tmp_path / 'CUB_200_2011').mkdir()
    with pytest.raises(FileNotFoundError, match=r"in .* list.txt and images/ but got \['CUB_200_2011'\]; unpack"):
        Shelf(str(tmp_path), split='train')
    with pytest.raises(FileNotFoundError, match='but got no such folder'):
        Shelf(str(tmp_path / 'nowhere'), split='train')
    with pytest.raises(FileNotFoundError, match=r'expected in .* the image a.jpg of the annotations but got'):
        Shelf(write(tmp_path, 'a.jpg 1\n', images=()), split='train')


def test_unknown_split(tmp_path):
    with pytest.raises(ValueError, match=r"Shelf.*split.*'train', 'test'.*'val'"):
        Shelf(str(tmp_path), split='val')
