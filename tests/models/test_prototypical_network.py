import pytest
import torch
from mmengine.structures import BaseDataElement

from mmkd_ext.functional import prototypical_loss
from mmkd_ext.models import PrototypicalNetwork
from mmkd_ext.registry import MODELS

LABELS = [4, 4, 4, 9, 9, 9]


def build(**kwargs):
    config = {
        'type': 'mmkd_ext.PrototypicalNetwork',
        'backbone': {'type': 'mmkd_ext.ConvNet', 'in_channels': 1, 'channels': (4, 5)},
        'neck': {'type': 'mmkd_ext.MaxPooling', 'kernel_size': 2},
        **kwargs,
    }
    return MODELS.build(config)


def batch():
    return torch.randn(6, 1, 12, 12), [BaseDataElement(gt_label=torch.tensor([label])) for label in LABELS]


def test_the_classic_network_embeds_in_64_and_1600_numbers():
    for channels, side, width in ((1, 28, 64), (3, 84, 1600)):
        model = build(backbone={'type': 'mmkd_ext.ConvNet', 'in_channels': channels, 'channels': (64,) * 4})
        assert model(torch.randn(2, channels, side, side)).shape == (2, width)


def test_loss_is_that_of_the_embedding():
    model, (images, samples) = build(num_shots=2), batch()
    losses = model(images, samples, mode='loss')
    assert list(losses) == ['loss_episode']
    expected = prototypical_loss(model(images), torch.tensor(LABELS), 2)
    torch.testing.assert_close(losses['loss_episode'], expected)
    losses['loss_episode'].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.backbone.parameters())


def test_prediction_is_the_embedding_and_depends_on_no_other_image():
    model, (images, samples) = build().eval(), batch()
    predicted = model(images, samples, mode='predict')
    assert predicted[0] is samples[0]
    for index, sample in enumerate(predicted):
        torch.testing.assert_close(sample.embedding, model(images[index : index + 1])[0])
    assert len(model(images, mode='predict')) == 6


def test_the_embedding_can_be_tapped():
    model, (images, samples) = build(), batch()
    seen = []
    model.embedding.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images, samples, mode='loss')
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], model(images))


def test_without_neck_the_last_map_is_flattened():
    assert build(neck=None)(torch.randn(2, 1, 12, 12)).shape == (2, 5 * 6 * 6)


def test_training_separates_two_classes():
    model, samples = build(), batch()[1]
    images = torch.randn(2, 1, 12, 12).repeat_interleave(3, dim=0) + 3 * torch.randn(6, 1, 12, 12)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(20):
        loss = model(images, samples, mode='loss')['loss_episode']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert losses[-1] < losses[0] / 5 < 1


def test_errors():
    model, (images, samples) = build(), batch()
    with pytest.raises(TypeError, match=r'PrototypicalNetwork: .*gt_label'):
        model(images, mode='loss')
    with pytest.raises(TypeError, match=r'PrototypicalNetwork: .*gt_label'):
        model(images, [*samples[:5], BaseDataElement()], mode='loss')
    with pytest.raises(ValueError, match=r"mode .*got 'train'"):
        model(images, mode='train')
    with pytest.raises(ValueError, match=r'PrototypicalNetwork: .*num_shots .*got 0'):
        PrototypicalNetwork(model.backbone, num_shots=0)
