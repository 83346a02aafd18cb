"""Official weights must give official outputs in the host's modules."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from mmkd_ext.models import convert_dino_vit, convert_official_crkd
from mmkd_ext.registry import MODELS

DIM, DEPTH, HEADS, PATCH, SIZE = 12, 2, 3, 4, 8
VIT = {
    'type': 'mmpretrain.VisionTransformer',
    'arch': {'embed_dims': DIM, 'num_layers': DEPTH, 'num_heads': HEADS, 'feedforward_channels': 4 * DIM},
    'img_size': SIZE,
    'patch_size': PATCH,
    'out_type': 'cls_token',
    'final_norm': True,
}


def _dino_weights():
    shapes = {
        'cls_token': (1, 1, DIM),
        'pos_embed': (1, (SIZE // PATCH) ** 2 + 1, DIM),
        'patch_embed.proj.weight': (DIM, 3, PATCH, PATCH),
        'patch_embed.proj.bias': (DIM,),
        'norm.weight': (DIM,),
        'norm.bias': (DIM,),
    }
    for i in range(DEPTH):
        for name, out, into in (
            ('attn.qkv', 3 * DIM, DIM),
            ('attn.proj', DIM, DIM),
            ('mlp.fc1', 4 * DIM, DIM),
            ('mlp.fc2', DIM, 4 * DIM),
        ):
            shapes |= {f'blocks.{i}.{name}.weight': (out, into), f'blocks.{i}.{name}.bias': (out,)}
        for name in ('norm1', 'norm2'):
            shapes |= {f'blocks.{i}.{name}.weight': (DIM,), f'blocks.{i}.{name}.bias': (DIM,)}
    return {key: torch.randn(shape, dtype=torch.float64) * 0.3 for key, shape in shapes.items()}


def _dino_forward(weights, images):
    """ViT of Dosovitskiy et al. with pre-norm blocks, on DINO's names."""

    def linear(x, name):
        return F.linear(x, weights[f'{name}.weight'], weights[f'{name}.bias'])

    def norm(x, name):
        return F.layer_norm(x, (DIM,), weights[f'{name}.weight'], weights[f'{name}.bias'], eps=1e-6)

    patches = F.conv2d(images, weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=PATCH)
    tokens = patches.flatten(2).transpose(1, 2)
    x = torch.cat([weights['cls_token'].expand(len(images), -1, -1), tokens], dim=1) + weights['pos_embed']
    for i in range(DEPTH):
        qkv = linear(norm(x, f'blocks.{i}.norm1'), f'blocks.{i}.attn.qkv').unflatten(-1, (3, HEADS, DIM // HEADS))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / (DIM // HEADS) ** 0.5).softmax(-1)
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), f'blocks.{i}.attn.proj')
        hidden = F.gelu(linear(norm(x, f'blocks.{i}.norm2'), f'blocks.{i}.mlp.fc1'))
        x = x + linear(hidden, f'blocks.{i}.mlp.fc2')
    return norm(x, 'norm')[:, 0]


@pytest.mark.parametrize('prefix', ['', 'module.backbone.'])
def test_dino_vit_gives_the_same_features(prefix):
    weights = _dino_weights()
    official = {prefix + key: value for key, value in weights.items()} | {prefix + 'head.mlp.0.weight': torch.zeros(1)}
    backbone = MODELS.build(VIT).double()
    backbone.eval()
    backbone.load_state_dict(convert_dino_vit(official), strict=True)
    images = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    torch.testing.assert_close(backbone(images)[-1], _dino_forward(weights, images), rtol=1e-9, atol=1e-10)


def test_dino_vit_refuses_other_networks():
    with pytest.raises(KeyError, match=r"convert_dino_vit: .*got 'layer1.weight'"):
        convert_dino_vit({'layer1.weight': torch.zeros(1)})


def _official_resnet18():
    resnet = torchvision.models.resnet18()
    resnet.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    resnet.maxpool = resnet.fc = nn.Identity()
    return resnet.eval()


def _official_head(name, num_prototypes):
    state = {}
    for h in range(2):
        mlp = nn.Sequential(nn.Linear(512, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6))
        state |= {f'{name}.projectors.{h}.mlp.{key}': value for key, value in mlp.state_dict().items()}
        state[f'{name}.prototypes.{h}.prototypes.weight'] = torch.randn(num_prototypes, 6)
    return state


def _ncd(**heads):
    return MODELS.build(
        {
            'type': 'mmkd_ext.NCDClassifier',
            'backbone': {'type': 'mmpretrain.ResNet_CIFAR', 'depth': 18},
            'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
            'known_head': {'type': 'mmkd_ext.CosineHead', 'in_channels': 512, 'num_classes': 5},
            **{
                name: {
                    'type': 'mmkd_ext.NovelHead',
                    'in_channels': 512,
                    'num_classes': num_classes,
                    'num_heads': 2,
                    'hidden_channels': 8,
                    'embed_channels': 6,
                }
                for name, num_classes in heads.items()
            },
        }
    )


@pytest.mark.parametrize('prefix', ['', 'model.', 'module.'])
def test_official_checkpoint_loads_strictly_and_gives_the_same_logits(prefix):
    resnet = _official_resnet18()
    official = {f'encoder.{key}': value for key, value in resnet.state_dict().items()}
    official['head_lab.prototypes.weight'] = torch.randn(5, 512)
    official |= _official_head('head_unlab', 4) | _official_head('head_unlab_over', 12)
    model = _ncd(novel_head=4, overcluster_head=12).eval()
    model.load_state_dict(convert_official_crkd({prefix + key: value for key, value in official.items()}), strict=True)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = F.cosine_similarity(resnet(images).unsqueeze(1), official['head_lab.prototypes.weight'], dim=-1)
        torch.testing.assert_close(model(images)[0, 0, :, :5], expected, rtol=1e-4, atol=1e-5)
    assert model.novel_head.mean_objective.isnan().all()


def test_pretraining_checkpoint_loads_strictly_into_stage_one():
    official = {f'encoder.{key}': value for key, value in _official_resnet18().state_dict().items()}
    official['head_lab.prototypes.weight'] = torch.randn(5, 512)
    _ncd().load_state_dict(convert_official_crkd(official), strict=True)


def test_loss_per_head_of_uno_selects_the_head():
    official = _official_head('head_unlab', 4) | {'loss_per_head': torch.tensor([3.0, 2.0])}
    converted = convert_official_crkd(official)
    model = _ncd(novel_head=4)
    model.load_state_dict(converted, strict=False)
    assert model.novel_head.best_head == 1


def test_vit_encoder_goes_through_the_dino_rules():
    official = {f'encoder.{key}': value for key, value in _dino_weights().items()}
    assert set(convert_official_crkd(official)) == {f'backbone.{key}' for key in MODELS.build(VIT).state_dict()}


def test_unknown_name_is_refused():
    with pytest.raises(KeyError, match=r"convert_official_crkd: .*got 'fc.weight'"):
        convert_official_crkd({'fc.weight': torch.zeros(1)})
