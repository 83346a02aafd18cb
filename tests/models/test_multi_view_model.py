import pytest
import torch
from torch import nn

from mmkd_ext.heads import CosineHead
from mmkd_ext.models import MultiViewModel


class Spy(MultiViewModel):
    """Answers with what it was asked."""

    def loss(self, views, data_samples):
        return {'loss': len(views)}

    def predict(self, views, data_samples):
        return ['predicted', *views]

    def _infer(self, views):
        return self._embed(views)


def test_modes():
    model, view = Spy(nn.Identity()), torch.zeros(2, 3)
    assert model([view, view], mode='loss') == {'loss': 2}
    assert model(view, mode='predict')[0] == 'predicted'
    assert model(view).shape == (1, 2, 3)
    with pytest.raises(ValueError, match=r"Spy: .*mode .*got 'train'"):
        model(view, mode='train')
    with pytest.raises(ValueError, match=r'Spy: .*got 2 views'):
        model([view, view], mode='predict')


def test_views_keep_their_order_and_share_a_forward_by_size():
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, calls, seen = Spy(backbone), [], []
    backbone.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    model.embedding.register_forward_hook(lambda module, args, output: seen.append(output))
    views = [torch.randn(2, 3, size, size) for size in (8, 4, 8)]
    expected = torch.stack([view.mean(dim=(2, 3)) for view in views])
    torch.testing.assert_close(model(views), expected)
    assert calls == [4, 2]
    torch.testing.assert_close(seen, [expected.flatten(0, 1)])


def test_prototypes_of_all_heads_become_unit():
    model = Spy(nn.Identity())
    model.heads = nn.ModuleList([CosineHead(4, 3), CosineHead(4, 2)])
    model.normalize_prototypes()
    for head in model.heads:
        torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(head.num_classes))
