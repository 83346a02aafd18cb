import dataclasses
from xml.etree import ElementTree

import numpy as np
import pytest

from mmkd_ext.visualization import ClassCount, DiscoveryResult, SummaryNumber
from mmkd_ext.visualization.html import report as html_parts


@pytest.fixture
def result():
    """Two labelled images; of eight others, three are in new classes and four below one half."""
    return DiscoveryResult(
        title='',
        paths=[f'{i}.png' for i in range(10)],
        pictures=[''] * 10,
        known_names=['cat', 'dog'],
        novel_names=['new 1', 'new 2', 'new 3'],
        labels=np.array([0, 1, 0, 0, 1, 1, 1, 2, 3, 4]),
        confidence=np.array([0.0, 0.0, 0.1, 0.2, 0.3, 0.49, 0.5, 0.6, 0.7, 1.0]),
        distance=np.zeros(10),
        is_labelled=np.arange(10) < 2,
    )


def text(html):
    return ''.join(ElementTree.fromstring(html).itertext())


def test_summary_counts_images_without_label(result):
    numbers = html_parts.summary_numbers(result)
    assert [(number.value, number.name) for number in numbers] == [
        ('8', 'images looked at'),
        ('3', 'new classes'),
        ('3', 'images in new classes'),
        ('4', 'doubtful images'),
    ]
    assert '38 %' in numbers[2].meaning
    assert '50 % of the images' in numbers[3].meaning


def test_numbers_of_the_method_follow_and_broken_files_come_last(result):
    own = SummaryNumber('97 %', 'accuracy', 'Right of 100.')
    full = dataclasses.replace(result, summary=[own], broken=[('a', 'b')] * 1200)
    numbers = html_parts.summary_numbers(full)
    assert numbers[4] == own
    assert (numbers[5].value, numbers[5].name) == ('1,200', 'broken files')
    assert '97 %' in text(html_parts.summary_part(full))


def test_what_is_not_there_has_no_section(result):
    for part in ('class_count_part', 'curves_part', 'broken_part', 'settings_part'):
        assert getattr(html_parts, part)(result) == ''
    assert html_parts.curves_part(dataclasses.replace(result, curves={'loss': [], 'acc': [(0, np.nan)]})) == ''


def test_names_are_text_with_visible_control_characters(result):
    broken = [('<script>alert("1")</script>\n.png', "can't & won't")]
    part = html_parts.broken_part(dataclasses.replace(result, broken=broken))
    assert '<script>alert("1")</script>␊.png' in text(part)
    assert "can't & won't" in text(part)
    settings = html_parts.settings_part(dataclasses.replace(result, settings={'<b>': ('<i>', None)}))
    assert '<b>' in text(settings)
    assert "('<i>', None)" in text(settings)


def test_the_number_of_classes_is_explained(result):
    count = ClassCount([2, 3], [0.5, 0.6], [0.1, 0.1], 3, 'accuracy of <labelled> images')
    part = html_parts.class_count_part(dataclasses.replace(result, class_count=count))
    assert 'took 3 new classes' in text(part)
    assert 'accuracy of <labelled> images' in text(part)
    assert 'class="mark"' in part
