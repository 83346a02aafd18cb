import hashlib

import numpy as np
import pytest

from mmkd_ext.datasets import Omniglot
from mmkd_ext.datasets.omniglot import ALPHABETS

# SHA-256 of the sorted lines of the split files that come with Prototypical Networks.
PUBLISHED = {
    'train': (4112, '2c896cd81ce6e265cb77cf6b6639f5413bb98cf6396cfb69e79bf3ae783f2e26'),
    'val': (688, 'aa90019d0f1878f34cd74856b44f307944e08b7408d636baebccd94ba852d517'),
    'trainval': (4800, '62d34cdcc485031005c531bd2a8f0dd8fcd177974311773eab1b29614501583c'),
    'test': (1692, '871120bc00230686b507e366092d9f804988354e61d5405c4008e002223f2bcc'),
}


def classes_of(split, **kwargs):
    return Omniglot('nowhere', split, lazy_init=True, **kwargs).metainfo['classes']


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two characters to train and one to test with, whose ink is a quarter of the image: top left, and so on."""
    monkeypatch.setitem(ALPHABETS, 'background', {'Latin': 1, 'Hebrew': 1})
    monkeypatch.setitem(ALPHABETS, 'evaluation', {'Tibetan': 1})
    for part, count in {'background': 2, 'evaluation': 1}.items():
        images = np.ones((count, 20, 105, 105), dtype=bool)
        images[:, :, :52, :52] = False
        np.savez(tmp_path / f'images_{part}.npz', images=images)
    return str(tmp_path)


@pytest.mark.parametrize('split', PUBLISHED)
def test_vinyals_split_is_the_published_one(split):
    names = sorted(classes_of(split, rotations=True))
    assert (len(names), hashlib.sha256('\n'.join(names).encode()).hexdigest()) == PUBLISHED[split]


def test_original_split():
    background, evaluation = classes_of('background'), classes_of('evaluation')
    assert (len(background), len(evaluation)) == (964, 659)
    assert not {name.split('/')[0] for name in background} & {name.split('/')[0] for name in evaluation}
    assert background[:2] == ('Alphabet_of_the_Magi/character01', 'Alphabet_of_the_Magi/character02')


def test_rotations_are_classes_turned_counter_clockwise(root):
    dataset = Omniglot(root, 'test', rotations=True)
    assert dataset.metainfo['classes'] == tuple(
        f'Tibetan/character01/rot{degrees}' for degrees in ('000', '090', '180', '270')
    )
    np.testing.assert_array_equal(dataset.get_gt_labels(), np.repeat([0, 1, 2, 3], 20))
    corners = {'top left': (5, 5), 'bottom left': (22, 5), 'bottom right': (22, 22), 'top right': (5, 22)}
    for label, ink in enumerate(corners):
        image = dataset[20 * label + 7]['img']
        assert {corner for corner, place in corners.items() if image[place] == 255} == {ink}
        assert {corner for corner, place in corners.items() if image[place] == 0} == set(corners) - {ink}


def test_images_and_labels(root):
    train = Omniglot(root, 'background', image_size=35)
    assert train.metainfo['classes'] == ('Hebrew/character01', 'Latin/character01')
    assert len(train) == 40
    assert train[0]['img'].shape == (35, 35)
    assert train[0]['img'].dtype == np.uint8
    assert train.get_cat_ids(39) == [1]


def test_splits_share_no_class(root):
    names = {split: set(Omniglot(root, split, rotations=True).metainfo['classes']) for split in PUBLISHED}
    assert names['train'] | names['val'] == names['trainval']
    assert not names['trainval'] & names['test']


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"Omniglot: expected split in \('train', .*\) but got 'training'"):
        Omniglot('nowhere', 'training')
    with pytest.raises(ValueError, match='Omniglot: expected image_size >= 1 but got 0'):
        Omniglot('nowhere', 'train', image_size=0)
    with pytest.raises(FileNotFoundError, match=r'Omniglot: expected in .*nowhere images_background'):
        Omniglot('nowhere', 'background')
