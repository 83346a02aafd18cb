import pytest
import torch

from mmkd_ext.functional import info_nce, supervised_contrastive
from mmkd_ext.registry import MODELS

LABELS = torch.tensor([0, -1, 1, 0, -1])


def build(**settings):
    head = {'type': 'mmkd_ext.ContrastiveHead', 'in_channels': 6, 'hidden_channels': 8, 'out_channels': 4}
    return MODELS.build({**head, **settings}).double()


def test_losses_are_weighted_and_see_the_projection():
    head, features = build(temperature=0.5, supervised_temperature=0.2, supervised_weight=0.3), torch.randn(2, 5, 6)
    features = features.double()
    # Without dropout the projection of a batch is the same each time, batch norm of all views together.
    projection = head.layers(features.reshape(10, 6)).reshape(2, 5, 4)
    found = head.loss(features, LABELS)
    assert list(found) == ['loss_info_nce', 'loss_supervised_contrastive']
    torch.testing.assert_close(found['loss_info_nce'], 0.7 * info_nce(projection, temperature=0.5))
    expected = 0.3 * supervised_contrastive(projection, LABELS, temperature=0.2)
    torch.testing.assert_close(found['loss_supervised_contrastive'], expected)


def test_gradient_reaches_features_and_every_parameter():
    head, features = build(), torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    sum(head.loss(features, LABELS).values()).backward()
    assert (features.grad.abs().sum(dim=2) > 0).all()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize('labels', [[-1] * 5, [0] * 5])
def test_any_mixture_of_labels_is_finite(labels):
    found = build().loss(torch.randn(2, 5, 6).double(), torch.tensor(labels))
    assert all(loss.isfinite() for loss in found.values())


def test_errors():
    with pytest.raises(ValueError, match=r'ContrastiveHead: expected supervised_weight in \[0, 1\] but got 1.5'):
        build(supervised_weight=1.5)
    with pytest.raises(ValueError, match='ContrastiveHead: expected temperature > 0 but got 0'):
        build(temperature=0)
