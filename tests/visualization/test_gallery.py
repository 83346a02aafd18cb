import numpy as np
import pytest
from matplotlib.patches import Rectangle

from mmkd_ext.visualization import GalleryImage, GalleryRow, gallery_figure, pick_rows
from mmkd_ext.visualization.figures import style


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


def test_no_image_is_covered_by_another():
    axes = gallery_figure([row(3, 2), row(3, 2)], num_clusters=2, title='').axes[0]
    corners = {tuple(np.round(picture.get_extent(), 6)) for picture in axes.images}
    assert len(corners) == 10
    boxes = [(left, right, min(a, b), max(a, b)) for left, right, a, b in corners]
    for i, first in enumerate(boxes):
        for second in boxes[:i]:
            apart = first[1] <= second[0] or second[1] <= first[0] or first[3] <= second[2] or second[3] <= first[2]
            assert apart


def test_left_out_clusters_are_mentioned():
    figure = gallery_figure([row()], num_clusters=100, title='Found')
    assert figure.texts[1].get_text() == '1 of 100 clusters, evenly spread from the purest to the least pure'


def test_image_of_any_shape_is_drawn():
    wide = GalleryImage(np.zeros((30, 96, 3), dtype=np.uint8), 'cat', False)
    picture = style.to_array(gallery_figure([GalleryRow('c', 'cat', 1.0, 1, [wide], [])], num_clusters=1, title=''))
    assert picture.shape[2] == 3


def test_few_rows_keep_their_order():
    assert pick_rows(np.array([0.2, 0.9, 0.5]), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize('max_rows', [2, 7, 20])
def test_many_rows_spread_from_the_purest_to_the_least_pure(max_rows):
    purities = np.random.default_rng(0).random(100)
    chosen = pick_rows(purities, max_rows)
    assert len(set(chosen.tolist())) == max_rows
    assert purities[chosen[0]] == purities.max()
    assert purities[chosen[-1]] == purities.min()
    assert (np.diff(purities[chosen]) < 0).all()
