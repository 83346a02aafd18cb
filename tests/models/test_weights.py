"""Real models with random weights, saved as their own and other training codes save them."""

import argparse

import pytest
import torch

from mmkd_ext.models.weights import classes_in, load_weights, named_classes, state_dicts
from mmkd_ext.models.zoo import build_zoo_model

mm = pytest.importorskip('mmpretrain.models')


def squeezenet():
    return build_zoo_model('torchvision', 'squeezenet1_1')


def under(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def features_in(word, weights):
    return {name.replace('features.', f'features.{word}.'): value for name, value in weights.items()}


def assert_loaded(model, source):
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


WRAPPED = {
    'DDP': lambda w: {'state_dict': under('module.', w)},
    'torch.compile(DDP(model))': lambda w: {'state_dict': under('_orig_mod.module.', w)},
    'DDP(torch.compile(model))': lambda w: {'state_dict': under('module._orig_mod.', w)},
    'DDP, a loss with weights': lambda w: {'state_dict': {**under('module.', w), 'criterion.weight': torch.ones(10)}},
    'mmrazor, teacher of another width': lambda w: {
        'state_dict': {**under('architecture.', w), **under('teacher.', {n: v[:1] for n, v in w.items()})}
    },
    'mdistiller': lambda w: {'model': {**under('module.student.', w), **under('module.teacher.', zeros(w))}},
    'Lightning': lambda w: {'state_dict': under('model.', w), 'epoch': 3, 'hyper_parameters': {'lr': 0.1}},
    'Lightning, compiled': lambda w: {'state_dict': under('model._orig_mod.', w)},
    'pytorch-cifar': lambda w: {'net': w, 'acc': 90.0, 'epoch': 1},
    'pytorch-cifar, DataParallel': lambda w: {'net': under('module.', w)},
    'timm, average alone': lambda w: {'state_dict_ema': w, 'args': argparse.Namespace(model='squeezenet1_1')},
    'timm, average too': lambda w: {'state_dict': w, 'state_dict_ema': zeros(w)},
    'mmengine, average': lambda w: {'state_dict': w, 'ema_state_dict': {**under('module.', zeros(w)), 'steps': zero()}},
    'an average of torch': lambda w: {'model_ema': {**under('module.', w), 'n_averaged': zero()}},
    'entries within entries': lambda w: {'model': {'student': {'state_dict': w}}},
    'DataParallel around a part': lambda w: {'state_dict': features_in('module', w)},
    'a part compiled': lambda w: {'state_dict': features_in('_orig_mod', w)},
    'activation checkpointing': lambda w: features_in('_checkpoint_wrapped_module', w),
}


def zero():
    return torch.zeros((), dtype=torch.long)


def zeros(weights):
    return {name: torch.zeros_like(value) for name, value in weights.items()}


@pytest.mark.parametrize('wrap', WRAPPED.values(), ids=WRAPPED.keys())
def test_known_wrappers_are_taken_off_in_any_order(tmp_path, wrap):
    source, model = squeezenet(), squeezenet()
    torch.save(wrap(source.state_dict()), tmp_path / 'a.pth')
    report = load_weights(model, tmp_path / 'a.pth')
    assert report.matched == 52
    assert_loaded(model, source)


def test_the_report_names_the_place_and_its_rivals(tmp_path):
    weights = squeezenet().state_dict()
    torch.save({'state_dict': weights, 'state_dict_ema': zeros(weights)}, tmp_path / 'a.pth')
    report = load_weights(squeezenet(), tmp_path / 'a.pth')
    assert (report.prefix, report.others) == ('state_dict.', ['state_dict_ema.'])
    model = squeezenet()
    assert load_weights(model, tmp_path / 'a.pth', prefix='state_dict_ema').prefix == 'state_dict_ema.'
    assert all(not value.any() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ('prefixes', 'named'), [(['encoder.'], "'state_dict.encoder.'"), (['encoder_q.', 'encoder_k.'], 'encoder_q.* and ')]
)
def test_other_prefixes_are_named_with_the_remedy(tmp_path, prefixes, named):
    weights = squeezenet().state_dict()
    torch.save({'state_dict': {k: v for p in prefixes for k, v in under(p, weights).items()}}, tmp_path / 'a.pth')
    message = f'big: expected the weights of a SqueezeNet but .* all 52 entries match under the prefix .*{named}'
    with pytest.raises(RuntimeError, match=f'{message}.*as prefix=.*save these entries'):
        load_weights(squeezenet(), tmp_path / 'a.pth', 'big')


def test_one_of_several_networks_is_not_chosen_by_chance(tmp_path):
    weights = squeezenet().state_dict()
    torch.save({'first': weights, 'second': zeros(weights)}, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r"big: .* has several, under the prefixes 'first\.', 'second\.'; .*prefix="):
        load_weights(squeezenet(), tmp_path / 'a.pth', 'big')
    torch.save({'first': weights}, tmp_path / 'a.pth')
    assert load_weights(squeezenet(), tmp_path / 'a.pth').prefix == 'first.'


def test_the_backbone_of_a_classifier(tmp_path):
    classifier = mm.ImageClassifier(
        dict(type='mmpretrain.ResNet', depth=18, base_channels=4),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=32),
    )
    torch.save({'state_dict': under('module.', classifier.state_dict())}, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r"match under the prefix 'state_dict\.backbone\.'"):
        load_weights(mm.ResNet(18, base_channels=4), tmp_path / 'a.pth')
    for prefix in ('backbone.', 'backbone', 'module.backbone.', 'state_dict.backbone.'):
        backbone = mm.ResNet(18, base_channels=4)
        assert load_weights(backbone, tmp_path / 'a.pth', prefix=prefix).prefix == 'state_dict.backbone.'
        assert_loaded(backbone, classifier.backbone)
    with pytest.raises(RuntimeError, match=r"under the prefix 'neck\.' but .* begin with state_dict\.module"):
        load_weights(mm.ResNet(18, base_channels=4), tmp_path / 'a.pth', prefix='neck.')


def test_both_networks_of_the_full_checkpoint_of_dino(tmp_path):
    student, teacher = squeezenet(), squeezenet()
    content = {
        'student': under('module.backbone.', student.state_dict()),
        'teacher': {**under('backbone.', teacher.state_dict()), 'head.mlp.0.weight': torch.ones(2, 2)},
        'args': argparse.Namespace(arch='squeezenet'),
    }
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r"'student\.backbone\.' and 'teacher\.backbone\.'"):
        load_weights(squeezenet(), tmp_path / 'a.pth')
    for prefix, source in (('student.module.backbone.', student), ('teacher.backbone.', teacher)):
        model = squeezenet()
        load_weights(model, tmp_path / 'a.pth', prefix=prefix)
        assert_loaded(model, source)


# What the hooks of models do while they load.


def swin_v2(window_size=8):
    arch = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2], extra_norm_every_n_blocks=0)
    return mm.SwinTransformerV2(arch=arch, img_size=64, window_size=window_size, out_indices=(1,))


def swin():
    arch = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2])
    return mm.SwinTransformer(arch=arch, img_size=64, window_size=2, out_indices=(1,))


def test_buffers_that_a_model_drops_on_purpose(tmp_path):
    """SwinV2 makes them for its own window, whatever the file has; what else is missing is missing."""
    source, model = swin_v2(), swin_v2()
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    load_weights(model, tmp_path / 'a.pth')
    assert_loaded(model, source)
    narrow = swin_v2(4)
    buffers = {name: value.clone() for name, value in narrow.named_buffers()}
    load_weights(narrow, tmp_path / 'a.pth')
    assert all(torch.equal(value, buffers[name]) for name, value in narrow.named_buffers())
    left = {n: v for n, v in source.state_dict().items() if 'relative_coords' not in n and n != 'norm1.weight'}
    torch.save(left, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r'missing are norm1\.weight, unexpected are none'):
        load_weights(swin_v2(), tmp_path / 'a.pth')


def test_names_that_a_model_changes_while_it_loads(tmp_path):
    """The last norm of a Swin had no number in the first version: by the raw names, one is missing and one too many."""
    source, model = swin(), swin()
    old = {
        name.replace('norm1.', 'norm.') if name.startswith('norm1') else name: v
        for name, v in source.state_dict().items()
    }
    torch.save({'state_dict': dict(old)}, tmp_path / 'a.pth')
    load_weights(model, tmp_path / 'a.pth')
    assert_loaded(model, source)


def test_names_keep_the_version_of_their_module(tmp_path):
    """Without it, batch norm would take a file without its counter as an old one, and the missing entry as there."""
    ordered = torch.nn.Sequential(torch.nn.BatchNorm1d(2)).state_dict()
    wrapped = type(ordered)((f'module.{name}', v) for name, v in ordered.items() if 'num_batches' not in name)
    wrapped._metadata = {'': {'version': 1}, 'module': {'version': 1}, 'module.0': {'version': 2}}
    torch.save(wrapped, tmp_path / 'a.pth')
    with pytest.raises(RuntimeError, match=r'missing are 0\.num_batches_tracked'):
        load_weights(torch.nn.Sequential(torch.nn.BatchNorm1d(2)), tmp_path / 'a.pth')


def test_position_embeddings_for_another_size_of_images(tmp_path):
    """mmpretrain resamples them in a hook of the model, timm in a filter that it keeps apart."""
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    source = mm.VisionTransformer(arch=arch, img_size=64, patch_size=8)
    torch.save(source.state_dict(), tmp_path / 'a.pth')
    model = mm.VisionTransformer(arch=arch, img_size=32, patch_size=8)
    load_weights(model, tmp_path / 'a.pth')
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])
    assert model.pos_embed.shape == (1, 17, 16)


def test_dinov2_at_224_pixels(tmp_path):
    """Published for 518 pixels, with a token that timm drops; resampled by timm, the same for a constant embedding."""
    timm = pytest.importorskip('timm')
    name = 'vit_small_patch14_dinov2.lvd142m'
    source = timm.create_model(name, depth=1)
    with torch.no_grad():
        source.pos_embed.fill_(0.25)
    torch.save({**source.state_dict(), 'mask_token': torch.zeros(1, 384)}, tmp_path / 'a.pth')
    model = build_zoo_model('timm', {'name': name, 'depth': 1, 'img_size': 224})
    load_weights(model, tmp_path / 'a.pth')
    assert model.pos_embed.shape == (1, 1 + 16 * 16, 384)
    torch.testing.assert_close(model.pos_embed, torch.full_like(model.pos_embed, 0.25))
    assert torch.equal(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    with pytest.raises(RuntimeError, match=r'of another architecture; .* missing are blocks\.1'):
        load_weights(build_zoo_model('timm', {'name': name, 'depth': 2}), tmp_path / 'a.pth')


# What else a file says.


@pytest.mark.parametrize(
    ('checkpoint', 'classes'),
    [
        ({'meta': {'dataset_meta': {'classes': ['b', 'a']}}}, ('b', 'a')),
        ({'meta': {'dataset_meta': {'classes': ('b', 'a', 'new'), 'num_known': 2}}}, ('b', 'a')),
        ({'meta': {'CLASSES': ('b', 'a')}}, ('b', 'a')),
        ({'meta': {'dataset_meta': {}}}, None),
        ({'model': {}}, None),
    ],
)
def test_classes_that_a_checkpoint_names(checkpoint, classes):
    assert named_classes(checkpoint) == classes
    assert classes_in(None) is None


def test_dicts_of_tensors_and_where_they_lie():
    one = {'w': torch.ones(1)}
    found = dict(state_dicts({'a': one, 'optimizer': {'state': {0: one}}, 'b': {'c': one}, 'epoch': 3}))
    assert set(found) == {'a.', 'b.c.'}
