import colorsys
import itertools

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb

from mmkd_ext.visualization.figures import style


def test_figure_becomes_pixels_of_its_size():
    picture = style.to_array(style.new_figure(2.0, 1.5))
    assert picture.shape == (300, 400, 3)
    assert picture.dtype == np.uint8
    assert (picture == 255).all()


def test_titles_are_drawn_at_the_top():
    figure = style.new_figure(3, 2)
    style.set_titles(figure, 'Title', 'and more')
    dark_rows = np.flatnonzero(style.to_array(figure).min(axis=(1, 2)) < 128)
    assert len(dark_rows)
    assert dark_rows.max() < 0.5 * style.DPI


def test_style_does_not_leak():
    @style.styled
    def size():
        return matplotlib.rcParams['font.size']

    before = matplotlib.rcParams['font.size']
    assert size() == style.BODY != before
    assert matplotlib.rcParams['font.size'] == before


def test_colours_are_distinct_and_repeat_after_ten():
    assert len(set(style.PALETTE)) == 10
    assert style.class_colour(13) == style.PALETTE[3]


def test_colours_differ_without_red_or_green_cones():
    """Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB."""
    deuteranopia = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    protanopia = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    linear = np.array([to_rgb(colour) for colour in style.PALETTE]) ** 2.2
    for cones in (deuteranopia, protanopia):
        seen = np.clip(linear @ cones.T, 0, 1) ** (1 / 2.2)
        closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert closest > 0.08


def test_text_is_dark_enough_to_read():
    for colour in (style.TEXT, style.MUTED):
        assert colorsys.rgb_to_hls(*to_rgb(colour))[1] < 0.45
