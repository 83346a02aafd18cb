"""EmbeddingHead: the formula, what the task and evaluation see, and taps for distillation."""

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.nn import functional as F

from mmkd_ext.functional import triplet_loss
from mmkd_ext.heads import EmbeddingHead
from mmkd_ext.registry import MODELS


def samples_of(labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def make(**settings):
    return MODELS.build({'type': 'mmkd_ext.EmbeddingHead', 'in_channels': 6, 'embedding_dims': 4, **settings})


@pytest.mark.parametrize('normalize', [True, False])
def test_linear_map_of_the_last_features(normalize):
    head, features = make(normalize=normalize), torch.randn(5, 6)
    expected = features @ head.fc.weight.T + head.fc.bias
    expected = F.normalize(expected) if normalize else expected
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head((torch.randn(5, 3), features)), expected)


@pytest.mark.parametrize('normalize', [True, False])
def test_both_embeddings_can_be_tapped(normalize):
    head, seen = make(normalize=normalize), {}
    for name in ('fc', 'normalized'):
        getattr(head, name).register_forward_hook(lambda *args, name=name: seen.update({name: args[2]}))
    features = torch.randn(5, 6)
    used = head(features)
    torch.testing.assert_close(seen['normalized'], F.normalize(seen['fc']))
    assert used is seen['normalized' if normalize else 'fc']


def test_an_embedding_of_zeros_has_a_gradient():
    head = make()
    head.fc.weight.data.zero_()
    head.fc.bias.data.zero_()
    head(torch.randn(5, 6)).sum().backward()
    assert head.fc.weight.grad.isfinite().all()


@pytest.mark.parametrize('scale', [1e-3, 1.0, 300.0])
def test_half_precision_is_normalised_in_float32(scale):
    """The squares of such values leave the range of float16."""
    embedding = (scale * torch.randn(5, 4)).half()
    unit = EmbeddingHead(6, 4).normalized(embedding)
    torch.testing.assert_close(unit, F.normalize(embedding.float()))


def test_under_autocast_directions_have_the_precision_of_float32():
    head, features = make(), 300 * torch.randn(5, 6)
    with torch.autocast('cpu', torch.bfloat16):
        embedding, unit = head.fc(features), head(features)
    assert embedding.dtype == torch.bfloat16
    torch.testing.assert_close(unit, F.normalize(embedding.float()))
    unit.sum().backward()
    assert head.fc.weight.grad.dtype == torch.float32


def test_task():
    head, features = make(loss={'type': 'mmkd_ext.TripletLoss', 'mining': 'all'}), torch.randn(6, 6)
    found = head.loss(features, samples_of([0, 0, 1, 1, 2, 2]))
    expected = triplet_loss(head(features), torch.tensor([0, 0, 1, 1, 2, 2]), mining='all')
    assert found.keys() == {'loss_metric'}
    torch.testing.assert_close(found['loss_metric'], expected)


def test_no_task():
    head = EmbeddingHead(6, 4)
    assert head.loss(torch.randn(2, 6), [BaseDataElement(), BaseDataElement()]) == {}


def test_no_label():
    with pytest.raises(TypeError, match='EmbeddingHead: expected data_samples with gt_label'):
        make(loss={'type': 'mmkd_ext.TripletLoss'}).loss(torch.randn(2, 6), [*samples_of([0]), BaseDataElement()])


def test_predictions_are_embeddings():
    head, features, samples = make(), torch.randn(3, 6), samples_of([4, 5, 6])
    for predicted in (head.predict(features, samples), head.predict(features)):
        torch.testing.assert_close(torch.stack([sample.embedding for sample in predicted]), head(features))
    assert [sample.gt_label.item() for sample in samples] == [4, 5, 6]
    assert samples[0].to_dict().keys() == {'gt_label', 'embedding'}
