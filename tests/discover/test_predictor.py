"""What a model says, against its own forward."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkd_ext.discover import OutFolder, Predictor
from mmkd_ext.pictures import read_square


@pytest.fixture
def predictor(discovered):
    folder = OutFolder(discovered)
    return Predictor(Config.fromfile(folder.config('discovery')), discovered / 'discovery' / 'epoch_2.pth', 'cpu')


def test_scores_are_the_softmax_of_the_cosines_of_the_best_head(predictor, discovered):
    paths = OutFolder(discovered).read_images().paths[:6]
    found = predictor.classify(paths, batch_size=4)
    model = predictor.model
    pixels = np.stack([read_square(path, predictor.side) for path in paths]).transpose(0, 3, 1, 2)
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
