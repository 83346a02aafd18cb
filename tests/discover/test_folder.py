"""What is written comes back, whatever the names."""

import os

from mmengine.config import Config

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover import OutFolder
from mmkd_ext.discover.folder import novel_class_names


def test_images_come_back(tmp_path):
    names = ['a b', 'quo"te', '文', os.fsdecode(b'\xff\xfe'), 'line\nbreak']
    images = FolderImages(names, [0, 1, -1, -1, -1], ['x', '文'], [8] * 5, True, [(names[3], 'cut off')])
    folder = OutFolder(tmp_path)
    assert folder.read_images() is None
    folder.write_images(images)
    assert folder.read_images() == images
    assert folder.read_recipe() is None


def test_a_config_that_is_there_stays(tmp_path):
    folder = OutFolder(tmp_path)
    folder.write_config('stage_one', {'a': 1, 'path': '/out {{ x }} "q"'})
    folder.write_config('stage_one', {'a': 2})
    assert 'a = 1' in folder.config('stage_one').read_text()
    assert Config.fromfile(folder.config('stage_one'), use_predefined_variables=False).path == '/out {{ x }} "q"'


def test_novel_names_differ_from_known_ones():
    assert novel_class_names(['cat'], 2) == ['new 1', 'new 2']
    assert novel_class_names(['new 2', 'new new 1'], 2) == ['new new new 1', 'new new new 2']
    assert novel_class_names(['new 2'], 0) == []
