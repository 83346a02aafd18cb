"""Axes of maps and tokens of real models, at sizes where a wrong order would give another shape."""

import pytest
import torch
import torchvision
from torch import nn

from mmkd_ext.distill import Recorder
from mmkd_ext.distill.layouts import Batch, LayoutProbe, find_layout

N, SIZE = 3, 64


def layout_of(model, tap, needs='grid', images=None, batch=None, **told):
    """The layout of one tap, and the tapped tensor."""
    images = torch.randn(N, 3, SIZE, SIZE) if images is None else images
    recorder = Recorder(model, [tap])
    with torch.no_grad(), LayoutProbe(model, [tap]) as probe, recorder.record() as features:
        model(images)
    batch = batch or Batch(N, tuple(images.shape[2:]))
    return find_layout(tap, features[tap], batch, probe, needs=needs, **told), features[tap]


def of_mmpretrain(**config):
    import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS

    model = MODELS.build(config)
    model.eval()  # returns None for some
    return model


@pytest.fixture(scope='module')
def swin():
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 4], [4, 4]).eval()


@pytest.mark.parametrize(
    ('tap', 'axes'),
    [
        ('features.0.0', 'NCHW'),
        ('features.0', 'NHWC'),
        ('features.1.0', 'NHWC'),
        ('features.2', 'NHWC'),
        ('features.3:in', 'NHWC'),
        ('norm', 'NHWC'),
        ('permute', 'NCHW'),
        ('avgpool', 'NCHW'),
    ],
)
def test_swin_of_torchvision(swin, tap, axes):
    layout, x = layout_of(swin, tap)
    assert layout.axes == axes
    channels = {'NCHW': 1, 'NHWC': 3}[axes]
    assert layout.to_map(x).shape[1] == x.shape[channels]
    assert len(set(layout.to_map(x).shape[2:])) == 1


def test_a_map_as_wide_as_deep_is_told_by_its_layers():
    # 16 channels at 16 x 16 positions: no shape could tell
    swin = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4]).eval()
    assert layout_of(swin, 'features.1')[1].shape == (N, 16, 16, 16)
    assert layout_of(swin, 'features.1')[0].axes == 'NHWC'
    assert layout_of(nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU()), '1:in')[0].axes == 'NCHW'


@pytest.mark.parametrize(
    ('config', 'tap', 'prefix'),
    [
        ({'type': 'VisionTransformer', 'arch': 'deit-tiny', 'img_size': SIZE}, 'layers.3', 1),
        ({'type': 'VisionTransformer', 'arch': 'deit-tiny', 'img_size': SIZE}, 'layers.3.attn', 1),
        ({'type': 'DistilledVisionTransformer', 'arch': 'deit-tiny', 'img_size': SIZE}, 'layers.3', 2),
        ({'type': 'SwinTransformer', 'arch': 'tiny', 'img_size': SIZE, 'pad_small_map': True}, 'norm3', 0),
        ({'type': 'DeiT3', 'arch': 'small', 'img_size': SIZE}, 'drop_after_pos', 0),
        ({'type': 'DeiT3', 'arch': 'small', 'img_size': SIZE}, 'layers.0', 1),
    ],
)
def test_tokens_of_mmpretrain(config, tap, prefix):
    layout, x = layout_of(of_mmpretrain(**config), tap)
    assert (layout.axes, layout.prefix_tokens) == ('NLC', prefix)
    torch.testing.assert_close(layout.to_map(x).flatten(2).mT, x[:, prefix:])


def test_layer_norms_with_channels_first():
    arch = {'base_dim': 8, 'depths': [1] * 4, 'orders': [2] * 4, 'dw_cfg': [{'type': 'DW', 'kernel_size': 7}] * 4}
    assert layout_of(of_mmpretrain(type='HorNet', arch=arch), 'stages.1.0')[0].axes == 'NCHW'


def test_images_that_are_not_square():
    vit = torchvision.models.VisionTransformer(SIZE, 16, 1, 2, 8, 16)
    layout, _ = layout_of(vit.encoder, 'layers', images=torch.randn(N, 17, 8), batch=Batch(N, (SIZE, SIZE)))
    assert (layout.axes, layout.prefix_tokens) == ('NLC', 1)
    convs = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(2), _Swap(), nn.LayerNorm(8), nn.Linear(8, 8))
    layout, x = layout_of(convs, '3', images=torch.randn(N, 3, 48, 80))
    assert layout.to_map(x).shape == (N, 8, 3, 5)


class _Swap(nn.Module):
    def forward(self, x):
        return x.mT


class _Encoder(nn.Module):
    """As in DETR: a convolution, then a transformer over (L, N, C), and a decoder that stacks its layers."""

    def __init__(self, num_layers=6):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 16, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1, enable_nested_tensor=False)
        self.decoder = _Decoder(num_layers)

    def forward(self, images):
        tokens = self.encoder(self.stem(images).flatten(2).permute(2, 0, 1))
        return self.decoder(tokens)


class _Decoder(nn.Module):
    def __init__(self, num_layers):
        super().__init__()
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(8, 2, 16) for _ in range(num_layers))
        self.query = nn.Embedding(7, 8)

    def forward(self, memory):
        x, outputs = self.query.weight[:, None].expand(-1, memory.shape[1], -1), []
        for layer in self.layers:
            x = layer(x, memory)
            outputs.append(x.transpose(0, 1))
        return torch.stack(outputs)


@pytest.mark.parametrize('is_training', [True, False])
def test_an_encoder_with_tokens_first(is_training):
    model = _Encoder().train(is_training)
    layout, x = layout_of(model, 'encoder')
    assert x.shape == (16, N, 8)
    assert (layout.axes, layout.prefix_tokens) == ('LNC', 0)
    torch.testing.assert_close(layout.to_map(x)[1, :, 2, 3], x[11, 1])


def test_a_decoder_that_stacks_layers_is_refused():
    with pytest.raises(ValueError, match=r"tap 'decoder': expected the 3 images .* \(6, 3, 7, 8\), so layers.*'rows'"):
        layout_of(_Encoder(), 'decoder', needs=None)
    assert layout_of(_Encoder(), 'decoder', needs=None, layout='rows')[0] is None


def test_windows_are_no_images():
    swin = of_mmpretrain(type='SwinTransformer', arch='tiny', img_size=SIZE, pad_small_map=True)
    with pytest.raises(ValueError, match=r'3 images of the rehearsal on the first axis but got \(27, 49, 96\)'):
        layout_of(swin, 'stages.0.blocks.0.attn.w_msa')


def test_masked_tokens_have_no_place():
    arch = {'embed_dims': 12, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 24}
    mae = of_mmpretrain(type='MAEViT', arch=arch, img_size=SIZE, patch_size=8, mask_ratio=0.75)
    for needs in (None, 'grid'):  # 16 of 64 tokens, which look like a grid of 4 x 4
        with pytest.raises(ValueError, match=r'MAEViT keeps a random part'):
            layout_of(mae, 'layers.1', needs)
    layout, x = layout_of(mae, 'layers.1', 'mean')
    torch.testing.assert_close(layout.positions(x).mean(2), x[:, 1:].mean(1))
    mae.forward = lambda images: type(mae).forward(mae, images, mask=None)
    assert layout_of(mae, 'layers.1')[0].prefix_tokens == 1


def test_what_is_not_known_is_asked_for():
    model = nn.Sequential(nn.Identity())
    odd = torch.randn(N, 5, 6, 7)
    with pytest.raises(ValueError, match=r"write layout= to the term, one of \['NCHW', 'NHWC'\]"):
        layout_of(model, '0', images=odd, batch=Batch(N, (SIZE, SIZE)))
    layout, _ = layout_of(model, '0', images=odd, batch=Batch(N, (SIZE, SIZE)), layout='NHWC')
    assert layout.to_map(odd).shape == (N, 7, 5, 6)
    tokens = torch.randn(N, 21, 7)
    with pytest.raises(ValueError, match=r'but got 21 tokens.*prefix_tokens='):
        layout_of(nn.Sequential(nn.Linear(7, 7)), '0', images=tokens, batch=Batch(N, (SIZE, SIZE)))
    layout, x = layout_of(
        nn.Sequential(nn.Linear(7, 7)), '0', images=tokens, batch=Batch(N, (SIZE, SIZE)), prefix_tokens=5
    )
    assert layout.to_map(x).shape == (N, 7, 4, 4)


def test_layouts_of_timm():
    timm = pytest.importorskip('timm')
    vit = timm.create_model('vit_tiny_patch16_224', img_size=SIZE, depth=2, reg_tokens=4).eval()
    assert layout_of(vit, 'blocks.1')[0].prefix_tokens == 5
    assert layout_of(vit, 'patch_embed')[0].prefix_tokens == 0
    swin = timm.create_model('swin_tiny_patch4_window7_224', img_size=SIZE, window_size=2, depths=(1, 1, 1, 1)).eval()
    assert [layout_of(swin, tap)[0].axes for tap in ('layers.1', 'layers.3', 'norm')] == ['NHWC'] * 3
    convnext = timm.create_model('convnext_atto', depths=(1, 1, 1, 1)).eval()
    assert layout_of(convnext, 'stages.2')[0].axes == 'NCHW'
