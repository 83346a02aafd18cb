"""New images: the answers are those of the discovery itself."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from mmkd_ext.discover import DiscoveryInferencer, OutFolder, find_model


def test_images_of_the_discovery_get_the_answers_of_its_table(discovered):
    with (discovered / 'assignments.csv').open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        rows = list(csv.DictReader(file))
    results = DiscoveryInferencer(discovered)([row['path'] for row in rows])
    assert [result['pred_class'] for result in results] == [row['cluster'] for row in rows]
    assert np.allclose([r['pred_score'] for r in results], [float(row['confidence']) for row in rows], atol=1e-4)
    assert np.allclose([r['distance'] for r in results], [float(row['distance']) for row in rows], atol=1e-4)
    known = OutFolder(discovered).read_images().classes
    for result in results:
        assert result['is_known'] == (result['pred_class'] in known)
        assert np.isclose(result['pred_scores'].sum(), 1)
        assert result['pred_scores'][result['pred_label']] == result['pred_score'] == result['pred_scores'].max()


def test_files_arrays_and_open_images_are_one(discovered):
    inferencer = DiscoveryInferencer(discovered)
    path = OutFolder(discovered).read_images().paths[1]
    with Image.open(path) as image:
        image.load()
    (by_file,) = inferencer(path)
    (by_image,) = inferencer([image])
    assert np.array_equal(by_file['pred_scores'], by_image['pred_scores'])
    grey = np.random.default_rng(0).integers(0, 255, (14, 14), dtype=np.uint8)
    one, three = inferencer([grey, np.repeat(grey[..., None], 3, axis=2)])
    assert np.array_equal(one['pred_scores'], three['pred_scores'])
    assert inferencer([]) == []


def test_batches_change_nothing(discovered):
    inferencer = DiscoveryInferencer(discovered)
    paths = OutFolder(discovered).read_images().paths[:7]
    whole, parts = inferencer(paths), inferencer(paths, batch_size=2)
    for one, other in zip(whole, parts, strict=True):
        assert np.allclose(one['pred_scores'], other['pred_scores'], atol=1e-6)


def test_config_and_weights_in_place_of_the_folder(discovered):
    config, weights = find_model(discovered)
    path = OutFolder(discovered).read_images().paths[0]
    by_folder, by_files = DiscoveryInferencer(discovered), DiscoveryInferencer(config, weights)
    assert by_folder.classes == by_files.classes
    assert by_folder(path)[0]['pred_class'] == by_files(path)[0]['pred_class']


def test_missing_things_are_explained(discovered, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'run tools/discover\.py first'):
        DiscoveryInferencer(tmp_path)
    with pytest.raises(FileNotFoundError, match='give weights='):
        DiscoveryInferencer(find_model(discovered)[0])
    os.makedirs(tmp_path / 'configs')
    (tmp_path / 'configs' / 'discovery.py').write_text('train_cfg = dict(max_epochs=3)')
    with pytest.raises(FileNotFoundError, match=r'checkpoint at .*epoch_3\.pth but found none'):
        DiscoveryInferencer(tmp_path)
