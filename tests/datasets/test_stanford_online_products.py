"""StanfordOnlineProducts on a folder in the official layout."""

import numpy as np
import pytest

from mmkd_ext.datasets import StanfordOnlineProducts

HEADER = 'image_id class_id super_class_id path\n'


@pytest.fixture
def root(tmp_path):
    lists = {
        'train': [(1, 1, 1, 'bicycle_final/1_0.JPG'), (2, 11318, 12, 'toaster_final/2_0.JPG')],
        'test': [(59552, 11319, 1, 'bicycle_final/3_0.JPG'), (59553, 22634, 12, 'toaster_final/4_1.JPG')],
    }
    for split, rows in lists.items():
        (tmp_path / f'Ebay_{split}.txt').write_text(HEADER + ''.join(' '.join(map(str, row)) + '\n' for row in rows))
        for row in rows:
            (tmp_path / row[3]).parent.mkdir(exist_ok=True)
            (tmp_path / row[3]).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('split', 'labels', 'first'), [('train', [0, 11317], '1_0.JPG'), ('test', [11318, 22633], '3_0.JPG')]
)
def test_official_split(root, split, labels, first):
    products = StanfordOnlineProducts(str(root), split=split)
    np.testing.assert_array_equal(products.get_gt_labels(), labels)
    assert products.get_data_info(0)['img_path'] == str(root / 'bicycle_final' / first)


def test_wrong_layout(root):
    (root / 'Ebay_test.txt').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'expected in .* Ebay_test.txt and folders such as bicycle_final/ but got',
    ):
        StanfordOnlineProducts(str(root), split='test')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', "expected the line 'image_id class_id super_class_id path' first in .* but got 'an empty file'"),
        (
            '1 1 1 bicycle_final/1_0.JPG\n',
            "expected the line .* first in .* but got '1 1 1 bicycle_final/1_0.JPG'",
        ),
        (HEADER + '1 1 bicycle_final/1_0.JPG\n', 'expected 4 words in line 2'),
        (HEADER + '1 one 1 bicycle_final/1_0.JPG\n', r"expected class numbers from 1 to 22634 in .* but got \['one'\]"),
        (HEADER + '1 22635 1 bicycle_final/1_0.JPG\n', r"expected class numbers from 1 to 22634 in .* \['22635'\]"),
        (HEADER, "expected images of split 'train' in the annotations in .* but got none"),
    ],
)
def test_unreadable_list(root, text, message):
    (root / 'Ebay_train.txt').write_text(text)
    with pytest.raises(ValueError, match=f'StanfordOnlineProducts: {message}'):
        StanfordOnlineProducts(str(root), split='train')
