import numpy as np
import pytest
from matplotlib.colors import to_hex

from mmkd_ext.visualization import GalleryImage, NeighbourRow, neighbours_figure
from mmkd_ext.visualization.figures import style


def image(is_wrong=False, name='cat'):
    return GalleryImage(np.full((8, 8, 3), 90, dtype=np.uint8), name, is_wrong)


def row(wrong=(False, True, False)):
    teacher = [image() for _ in wrong]
    return NeighbourRow(image(), {'teacher': teacher, 'student': [image(w, 'dog' if w else 'cat') for w in wrong]})


def test_right_and_wrong_images_are_framed():
    axes = neighbours_figure([row()], title='Nearest').axes[0]
    assert len(axes.images) == 1 + 3 + 3
    colours = [to_hex(patch.get_edgecolor()) for patch in axes.patches]
    assert colours.count(style.WRONG) == 1
    assert colours.count(style.PALETTE[2]) == 5
    texts = [text.get_text() for text in axes.texts]
    assert texts.count('dog') == 1  # the wrong one
    assert texts.count('cat') == 1  # the query
    assert {'teacher', 'student'} <= set(texts)


def test_the_frame_is_around_the_wrong_image():
    axes = neighbours_figure([row((False, True, False))], title='').axes[0]
    frame = next(patch for patch in axes.patches if to_hex(patch.get_edgecolor()) == style.WRONG)
    student_line = sorted(picture.get_extent()[0] for picture in axes.images[-3:])
    assert frame.get_x() == student_line[1]


@pytest.mark.parametrize('num_rows', [1, 3])
def test_no_image_is_covered_by_another(num_rows):
    axes = neighbours_figure([row()] * num_rows, title='').axes[0]
    boxes = [(left, right, min(a, b), max(a, b)) for left, right, a, b in (i.get_extent() for i in axes.images)]
    assert len(boxes) == 7 * num_rows
    for i, first in enumerate(boxes):
        for second in boxes[:i]:
            apart = first[1] <= second[0] or second[1] <= first[0] or first[3] <= second[2] or second[3] <= first[2]
            assert apart


def test_one_model_and_long_names():
    only = NeighbourRow(image(), {'student': [image(True, 'a very long class name')]})
    axes = neighbours_figure([only], title='').axes[0]
    assert 'a very long…' in [text.get_text() for text in axes.texts]
    assert style.to_array(neighbours_figure([only], title='')).shape[2] == 3
