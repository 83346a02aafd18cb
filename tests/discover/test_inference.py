"""What a model says of all images, of new ones, and elsewhere."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmkd_ext.datasets.folder_images import FolderImages
from mmkd_ext.discover import DiscoveryInferencer, OutFolder, Predictor, export_backbone, export_onnx, find_model
from mmkd_ext.discover.inference import Predictions, discovery_result, map_points, read_curves
from mmkd_ext.pictures import read_square

# --------------------------------------------------------------------------------------------------
# Predictions.


@pytest.fixture
def predictor(discovered):
    folder = OutFolder(discovered)
    return Predictor(Config.fromfile(folder.config('discovery')), discovered / 'discovery' / 'epoch_2.pth', 'cpu')


def test_scores_are_the_softmax_of_the_cosines_of_the_best_head(predictor, discovered):
    images = OutFolder(discovered).read_images()
    paths, deep = images.paths[:6], images.value_range
    found = predictor.classify(paths, batch_size=4)
    model = predictor.model
    pixels = np.stack([read_square(path, predictor.side, deep) for path in paths]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        images = (torch.from_numpy(pixels).float() - model.data_preprocessor.mean) / model.data_preprocessor.std
        embedding = model.neck(model.backbone(images))[0]
        best = int((model.novel_head.objective_sum / model.novel_head.objective_count).argmin())
        cosine = torch.cat([model.known_head(embedding), model.novel_head(embedding)[best]], dim=1)
    assert np.allclose(found.embedding_ND, embedding, atol=1e-5)
    assert np.allclose(found.cosine_NC, cosine, atol=1e-5)
    assert np.allclose(found.scores_NC, (cosine.double() / model.temperature).softmax(dim=1), atol=1e-5)


def test_embedding_is_that_of_classify(predictor, discovered):
    paths = OutFolder(discovered).read_images().paths[:3]
    assert np.array_equal(predictor.embed(paths), predictor.classify(paths).embedding_ND)


def test_weights_of_another_model_are_refused(discovered):
    cfg = Config.fromfile(OutFolder(discovered).config('discovery'))
    with pytest.raises(RuntimeError, match='another architecture'):
        Predictor(cfg, discovered / 'stage_one' / 'epoch_1.pth', 'cpu')


# --------------------------------------------------------------------------------------------------
# New images.


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
    with pytest.raises(FileNotFoundError, match='run mmkd discover first'):
        DiscoveryInferencer(tmp_path)
    with pytest.raises(FileNotFoundError, match='give weights='):
        DiscoveryInferencer(find_model(discovered)[0])
    os.makedirs(tmp_path / 'configs')
    (tmp_path / 'configs' / 'discovery.py').write_text('train_cfg = dict(max_epochs=3)')
    with pytest.raises(FileNotFoundError, match=r'checkpoint at .*epoch_3\.pth but found none'):
        DiscoveryInferencer(tmp_path)


# --------------------------------------------------------------------------------------------------
# The input of report and table.


@pytest.fixture
def result():
    images = FolderImages(['a', 'b', 'c'], [1, -1, -1], ['x', 'y'], [8] * 3, True, [('d', 'cut off')])
    scores = np.array([[0.6, 0.3, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.8, 0.1, 0.1, 0.0]])
    cosine = np.array([[0.9, 0.4, 0.0, 0.0], [0.1, 0.3, 0.8, 0.0], [1.0, 0.1, 0.1, 0.0]])
    return discovery_result(
        images,
        Predictions(np.eye(3), scores, cosine),
        ['new 1', 'new 2'],
        ['a', 'b', 'c'],
        title='t',
        curves={},
        class_count=None,
        settings={},
    )


def test_labelled_images_keep_their_label_with_the_model_s_confidence_in_it(result):
    assert result.labels.tolist() == [1, 2, 0]
    assert result.confidence.tolist() == [0.3, 0.7, 0.8]
    assert np.allclose(result.distance, [0.6, 0.2, 0.0])
    assert result.is_labelled.tolist() == [True, False, False]


def test_relation_is_the_mean_share_of_the_known_classes_and_0_without_members(result):
    share = 1 / (1 + np.exp((0.1 - 0.3) / 0.1))
    assert np.allclose(result.relation_NK, [[1 - share, share], [0.0, 0.0]])


def test_a_map_of_many_images_puts_twins_at_one_place(monkeypatch):
    from mmkd_ext.discover import inference

    monkeypatch.setattr(inference, '_MAX_PROJECTED', 30)
    monkeypatch.setattr(inference, '_TILE', 7)
    kinds = np.eye(4)[np.arange(80) % 4] + np.random.default_rng(0).normal(scale=0.01, size=(80, 4))
    points = map_points(kinds)
    assert points.shape == (80, 2)
    assert np.isfinite(points).all()
    centres = np.stack([points[kind::4].mean(axis=0) for kind in range(4)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == np.arange(80) % 4).all()
    assert np.array_equal(points, map_points(kinds))


def test_a_later_start_continues_the_curves(tmp_path):
    for start, epochs in (('1', (1, 2, 3)), ('2', (3, 4))):
        folder = tmp_path / start / 'vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps({'epoch': epoch, 'loss': epoch + int(start), 'lr': 0.1}) for epoch in epochs]
        (folder / 'scalars.json').write_text('\n'.join(lines))
    assert read_curves(tmp_path) == {'loss': [(1, 2), (2, 3), (3, 5), (4, 6)]}


# --------------------------------------------------------------------------------------------------
# Export.


def test_onnx_agrees(discovered, tmp_path):
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    inferencer = DiscoveryInferencer(discovered, device='cpu')
    export_onnx(inferencer, tmp_path / 'model.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']
    session = runtime.InferenceSession(tmp_path / 'model.onnx', providers=['CPUExecutionProvider'])
    about = json.loads(session.get_modelmeta().custom_metadata_map['discovery'])
    assert about['classes'] == inferencer.classes
    for paths in (OutFolder(discovered).read_images().paths[:5], OutFolder(discovered).read_images().paths[:1]):
        squares = np.stack([read_square(path, about['side']) for path in paths]).astype(np.float32)
        scores, cosine, embedding = session.run(None, {'image': squares.transpose(0, 3, 1, 2)})
        expected = inferencer.predictor.classify(paths)
        assert np.allclose(scores, expected.scores_NC, atol=1e-4)
        assert np.allclose(cosine, expected.cosine_NC, atol=1e-4)
        assert np.allclose(embedding, expected.embedding_ND, rtol=1e-4, atol=1e-4)


def test_backbone_loads_as_mmengine_loads_pretrained_weights(discovered, tmp_path):
    from mmkd_ext.registry import MODELS

    export_backbone(find_model(discovered)[1], tmp_path / 'backbone.pth')
    network = DiscoveryInferencer(discovered, device='cpu').predictor.model
    init = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'backbone.pth'), 'prefix': 'backbone.'}
    channels = [layer.out_channels for layer in network.backbone.layers if isinstance(layer, torch.nn.Conv2d)]
    backbone = MODELS.build({'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': channels, 'init_cfg': init})
    backbone.init_weights()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(backbone.eval()(images)[0], network.backbone(images)[0])


def test_a_checkpoint_without_backbone_is_refused(tmp_path):
    torch.save({'state_dict': {'head.weight': torch.zeros(1)}}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r"entries backbone\.\* .* but got \['head\.weight'\]"):
        export_backbone(tmp_path / 'x.pth', tmp_path / 'y.pth')
