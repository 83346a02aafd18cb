"""CUB200 on a folder in the official layout."""

import numpy as np
import pytest

from mmkd_ext.datasets import CUB200


@pytest.fixture
def root(tmp_path):
    """Species 1, 100, 101 and 200; the numbers of images do not follow their order."""
    rows = [(4, '001.A/a.jpg', 1), (2, '100.B/b.jpg', 100), (3, '101.C/c.jpg', 101), (1, '200.D/d.jpg', 200)]
    for _, path, _ in rows:
        (tmp_path / 'images' / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / path).touch()
    (tmp_path / 'images.txt').write_text(''.join(f'{number} {path}\n' for number, path, _ in rows))
    (tmp_path / 'image_class_labels.txt').write_text(''.join(f'{number} {label}\n' for number, _, label in rows[::-1]))
    (tmp_path / 'train_test_split.txt').write_text('1 1\n2 0\n3 1\n4 0\n')
    return tmp_path


@pytest.mark.parametrize(('split', 'labels', 'names'), [('train', [0, 99], 'ab'), ('test', [100, 199], 'cd')])
def test_halves_of_the_species(root, split, labels, names):
    birds = CUB200(str(root), split=split)
    np.testing.assert_array_equal(birds.get_gt_labels(), labels)
    assert [birds.get_data_info(index)['img_path'][-5] for index in range(2)] == list(names)


def test_wrong_layout(root, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r'CUB200: expected in .* images.txt, image_class_labels.txt and images/ but got'
    ):
        CUB200(str(tmp_path / 'images'), split='train')
    (root / 'image_class_labels.txt').write_text('1 1\n')
    with pytest.raises(ValueError, match=r'CUB200: expected the same images in .* but got 4 and 1, 3 of them in one'):
        CUB200(str(root), split='train')


@pytest.mark.parametrize('label', [0, 201, 300])
def test_class_out_of_range(root, label):
    (root / 'image_class_labels.txt').write_text(f'1 200\n2 100\n3 101\n4 {label}\n')
    with pytest.raises(ValueError, match=rf"CUB200: expected class numbers from 1 to 200 in .* got \['{label}'\]"):
        CUB200(str(root), split='train')


def test_split_without_images(root):
    (root / 'image_class_labels.txt').write_text('1 1\n2 2\n3 3\n4 4\n')
    with pytest.raises(ValueError, match=r"CUB200: expected images of split 'test' in the annotations in .* got none"):
        CUB200(str(root), split='test')
