"""What is exported gives the same answers elsewhere."""

import json

import numpy as np
import pytest
import torch

from mmkd_ext.discover import DiscoveryInferencer, OutFolder, export_backbone, export_onnx, find_model
from mmkd_ext.pictures import read_square


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
