"""A last batch of one image: no batch statistics, and no harm."""

import pytest
import torch

from mmkd_ext.heads import ContrastiveHead, NovelHead


@pytest.mark.parametrize(
    ('build', 'call', 'shape'),
    [
        (
            lambda: NovelHead(6, num_classes=3, num_heads=2, hidden_channels=8, embed_channels=4),
            lambda head, x: head.project(x),
            (6,),
        ),
        (lambda: ContrastiveHead(6, hidden_channels=8, out_channels=4), lambda head, x: head(x[None]), (6,)),
    ],
)
def test_one_row_is_normalised_as_in_evaluation(build, call, shape):
    head = build().train()
    one = torch.randn(1, *shape)
    with pytest.raises(ValueError, match=r'at least 2 images.*raise batch_size .*drop_last=True'):
        call(head, one)
    call(head, torch.randn(8, *shape))
    before = {name: tensor.clone() for name, tensor in head.named_buffers()}
    value = call(head, one)
    assert all(torch.equal(before[name], tensor) for name, tensor in head.named_buffers())
    value.sum().backward()
    torch.testing.assert_close(value, call(head.eval(), one))
