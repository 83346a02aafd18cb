"""Rows of pictures: clusters, queries and their neighbours."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from mmengine.structures import BaseDataElement

from mmkd_ext.visualization import (
    Assignment,
    GalleryImage,
    GalleryRow,
    NeighbourRow,
    gallery_figure,
    neighbours_figure,
    pick_rows,
    small_picture,
    thumbnail,
)
from mmkd_ext.visualization.figures import style

# --------------------------------------------------------------------------------------------------
# Gallery.


def image(is_wrong=False, name='cat'):
    return GalleryImage(np.full((8, 8, 3), 90, dtype=np.uint8), name, is_wrong)


def row(most=2, least=1, wrong=0):
    images = [image() for _ in range(most - wrong)] + [image(True, 'a very long name') for _ in range(wrong)]
    return GalleryRow('cluster 4', 'cat', 0.875, 16, images, [image() for _ in range(least)])


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_image_is_drawn_and_wrong_ones_are_framed_and_named():
    figure = gallery_figure([row(), row(wrong=2)], num_clusters=2, title='Found')
    axes = figure.axes[0]
    assert len(axes.images) == 6
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(frames) == 2 + 1  # the legend's, too
    assert texts(axes).count('a very lo…') == 2
    assert texts(axes).count('cluster 4: 88% of 16 images') == 2
    assert {'most confident', 'least confident'} <= set(texts(axes))


def test_left_out_clusters_are_mentioned():
    figure = gallery_figure([row()], num_clusters=100, title='Found')
    assert figure.texts[1].get_text() == '1 of 100 clusters, evenly spread from the purest to the least pure'


def test_image_of_any_shape_is_drawn():
    wide = GalleryImage(np.zeros((30, 96, 3), dtype=np.uint8), 'cat', False)
    picture = style.to_array(gallery_figure([GalleryRow('c', 'cat', 1.0, 1, [wide], [])], num_clusters=1, title=''))
    assert picture.shape[2] == 3


def test_few_rows_keep_their_order():
    assert pick_rows(np.array([0.2, 0.9, 0.5]), 3).tolist() == [0, 1, 2]


def test_many_rows_spread_from_the_purest_to_the_least_pure():
    purities = np.random.default_rng(0).random(100)
    for max_rows in (2, 7, 20):
        chosen = pick_rows(purities, max_rows)
        assert len(set(chosen.tolist())) == max_rows
        assert purities[chosen[0]] == purities.max()
        assert purities[chosen[-1]] == purities.min()
        assert (np.diff(purities[chosen]) < 0).all()


# --------------------------------------------------------------------------------------------------
# Neighbours.


def query(wrong=(False, True, False)):
    teacher = [image() for _ in wrong]
    return NeighbourRow(image(), {'teacher': teacher, 'student': [image(w, 'dog' if w else 'cat') for w in wrong]})


def test_right_and_wrong_images_are_framed():
    axes = neighbours_figure([query()], title='Nearest').axes[0]
    assert len(axes.images) == 1 + 3 + 3
    colours = [to_hex(patch.get_edgecolor()) for patch in axes.patches]
    assert colours.count(style.WRONG) == 1
    assert colours.count(style.PALETTE[2]) == 5
    assert texts(axes).count('dog') == 1  # the wrong one
    assert texts(axes).count('cat') == 1  # the query
    assert {'teacher', 'student'} <= set(texts(axes))


def test_the_frame_is_around_the_wrong_image():
    axes = neighbours_figure([query((False, True, False))], title='').axes[0]
    frame = next(patch for patch in axes.patches if to_hex(patch.get_edgecolor()) == style.WRONG)
    student_line = sorted(picture.get_extent()[0] for picture in axes.images[-3:])
    assert frame.get_x() == student_line[1]


def test_one_model_and_long_names():
    only = NeighbourRow(image(), {'student': [image(True, 'a very long class name')]})
    axes = neighbours_figure([only], title='').axes[0]
    assert 'a very long…' in texts(axes)
    assert style.to_array(neighbours_figure([only], title='')).shape[2] == 3


def test_no_image_is_covered_by_another():
    gallery = gallery_figure([row(3, 2), row(3, 2)], num_clusters=2, title='')
    for figure, number in ((gallery, 10), *((neighbours_figure([query()] * n, title=''), 7 * n) for n in (1, 3))):
        corners = {tuple(np.round(picture.get_extent(), 6)) for picture in figure.axes[0].images}
        assert len(corners) == number
        boxes = [(left, right, min(a, b), max(a, b)) for left, right, a, b in corners]
        for i, first in enumerate(boxes):
            for second in boxes[:i]:
                apart = first[1] <= second[0] or second[1] <= first[0] or first[3] <= second[2] or second[3] <= first[2]
                assert apart


# --------------------------------------------------------------------------------------------------
# Thumbnails.


EXPECTED = Assignment(5, 'test', 0, 0, 0, 1.0, 1.0)


def dataset(image):
    return [{'inputs': image, 'data_samples': BaseDataElement(metainfo={'sample_idx': 5, 'split_name': 'test'})}]


def test_small_image_keeps_its_pixels():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    np.testing.assert_array_equal(thumbnail(dataset(image), 0, EXPECTED, is_bgr=False), image.permute(1, 2, 0))


def test_bgr_becomes_rgb():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    image[0] = 200
    assert thumbnail(dataset(image), 0, EXPECTED, is_bgr=True)[0, 0].tolist() == [0, 0, 200]


def test_grey_image_gets_three_channels():
    assert thumbnail(dataset(torch.ones(1, 4, 4)), 0, EXPECTED, is_bgr=False).shape == (4, 4, 3)


def test_large_image_is_made_small_in_proportion():
    image = torch.full((3, 448, 224), 77, dtype=torch.uint8)
    picture = thumbnail(dataset(image), 0, EXPECTED, is_bgr=False)
    assert picture.shape == (96, 48, 3)
    assert (picture == 77).all()


def test_another_sample_at_the_position_is_refused():
    other = Assignment(6, 'test', 0, 0, 0, 1.0, 1.0)
    with pytest.raises(RuntimeError, match=r"\(6, 'test'\).*position 0.*\(5, 'test'\).*DefaultSampler"):
        thumbnail(dataset(torch.ones(3, 4, 4)), 0, other, is_bgr=False)


def test_picture_of_a_tensor_alone():
    image = torch.randint(0, 256, (1, 5, 7), dtype=torch.uint8)
    np.testing.assert_array_equal(small_picture(image, is_bgr=False), image.expand(3, -1, -1).permute(1, 2, 0))
