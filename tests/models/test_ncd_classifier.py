import copy

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmkd_ext.functional import class_relation_kd, swapped_prediction
from mmkd_ext.models import NCDClassifier, convert_official_crkd
from mmkd_ext.models.multi_view import discovery_targets
from mmkd_ext.registry import MODELS

K, N, H = 5, 4, 3
GAP = {'type': 'mmpretrain.GlobalAveragePooling'}


def _novel_head(in_channels, num_classes=N):
    return {
        'type': 'mmkd_ext.NovelHead',
        'in_channels': in_channels,
        'num_classes': num_classes,
        'num_heads': H,
        'hidden_channels': 16,
        'embed_channels': 8,
    }


def _model(novel=True, over=False, backbone=None, neck=GAP, dim=8, **kwargs):
    return MODELS.build(
        {
            'type': 'mmkd_ext.NCDClassifier',
            'backbone': backbone or {'type': 'mmkd_ext.ConvNet', 'in_channels': 3, 'channels': (4, 8)},
            'neck': neck,
            'known_head': {'type': 'mmkd_ext.CosineHead', 'in_channels': dim, 'num_classes': K},
            'novel_head': _novel_head(dim) if novel else None,
            'overcluster_head': _novel_head(dim, 3 * N) if over else None,
            **kwargs,
        }
    )


def _samples(labels):
    return [BaseDataElement(gt_label=torch.tensor([label])) for label in labels]


def _views(num_rows, sizes=(8, 8)):
    return [torch.randn(num_rows, 3, size, size) for size in sizes]


class _Tap:
    """Records every output of a module."""

    def __init__(self, module):
        self.outputs = []
        module.register_forward_hook(lambda module, args, output: self.outputs.append(output))


LABELS = [0, -1, 4, -1, -1, 2]


# The official training step.


def _load(vectors, prefix):
    official = {
        key.removeprefix(prefix): torch.from_numpy(value) for key, value in vectors.items() if key.startswith(prefix)
    }
    return convert_official_crkd(official)


def _official_step(vectors, case, kind):
    num_large, _, num_known, num_novel, num_heads = vectors[f'{case}_meta'].tolist()
    state = _load(vectors, f'{case}_{kind}_net/')
    novel_head = _novel_head(12, num_novel) | {'num_heads': num_heads, 'hidden_channels': 24}
    known_head = {'type': 'mmkd_ext.CosineHead', 'in_channels': 12, 'num_classes': num_known}
    student = NCDClassifier(nn.Identity(), known_head, novel_head=novel_head, num_large_views=num_large)
    teacher = NCDClassifier(nn.Identity(), known_head | {'normalize_at_eval': False}, num_large_views=num_large).eval()
    dtype = state['known_head.prototypes.weight'].dtype
    student.to(dtype).load_state_dict(state, strict=True)
    teacher.to(dtype).load_state_dict(_load(vectors, f'{case}_{kind}_old/'), strict=True)

    feats = torch.from_numpy(vectors[f'{case}_{kind}_feats']).requires_grad_()
    labels = torch.from_numpy(vectors[f'{case}_{kind}_labels'])
    labels = labels.where(torch.from_numpy(vectors[f'{case}_{kind}_mask_lab']), -1)
    tap = _Tap(student.class_logits)
    loss = student(list(feats), _samples(labels.tolist()), mode='loss')['loss_cluster']
    with torch.no_grad():
        teacher_logits = teacher(list(feats))
    (student_logits,) = tap.outputs
    alpha, kd_temperature, temperature = vectors[f'{case}_alpha_T_tau'].tolist()
    kd_settings = {'temperature': temperature, 'kd_temperature': kd_temperature}
    kd_loss = MODELS.build({'type': 'mmkd_ext.ClassRelationLoss', 'loss_weight': alpha, **kd_settings})
    total = loss + kd_loss(student_logits, teacher_logits, labels=labels)
    total.backward()
    unlabelled = labels < 0
    kd_H = class_relation_kd(student_logits[:, :, unlabelled], teacher_logits[:, :, unlabelled], **kd_settings)
    targets = discovery_targets(student_logits, labels, num_known=num_known, num_large=num_large, assign=student.assign)
    return student, feats, student_logits, targets, teacher_logits, kd_H, total


@pytest.mark.parametrize('case', ['2large', '2large_2small'])
@pytest.mark.parametrize(('kind', 'rtol', 'atol'), [('f64', 1e-9, 1e-12), ('f32', 1e-5, 1e-6)])
def test_training_step_of_the_official_code(golden, case, kind, rtol, atol):
    vectors = golden('crkd_train_step')

    def compare(actual, name):
        expected = torch.from_numpy(vectors[f'{case}_{kind}_{name}'])
        torch.testing.assert_close(
            actual.detach(), expected[: len(actual)] if actual.dim() else expected, rtol=rtol, atol=atol
        )

    student, feats, student_logits, targets, teacher_logits, kd_H, total = _official_step(vectors, case, kind)
    compare(student_logits, 'logits')
    compare(targets, 'targets')
    compare(teacher_logits.squeeze(1), 'old_logits_lab')
    compare(student.novel_head.mean_objective, 'loss_cluster_per_head')
    compare(kd_H, 'kd_per_head')
    compare(total, 'loss')
    compare(feats.grad, 'grad_feats')

    expected = _load(vectors, f'{case}_{kind}_grad/')
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    assert set(gradients) <= set(expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=rtol, atol=atol, msg=lambda text, name=name: name + text
        )


# The three modes.


def test_stage_one_loss_is_cross_entropy_of_labelled_rows():
    model = _model(novel=False).double()
    views = [view.double() for view in _views(6, (8, 8, 4))]
    losses = model(views, _samples(LABELS), mode='loss')
    labels = torch.tensor(LABELS)
    # Batch statistics are those of all views of one size.
    features = model.embedding(torch.cat([model._features(torch.cat(views[:2])), model._features(views[2])]))
    logits = model.known_head(features).unflatten(0, (3, 6))[:, labels >= 0] / 0.1
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels[labels >= 0].repeat(3))
    assert list(losses) == ['loss_known']
    torch.testing.assert_close(losses['loss_known'], expected)


def test_views_of_one_size_share_a_forward_and_keep_their_order():
    model = _model().eval()
    views = _views(5, (8, 6, 8, 6))
    calls, taps = _Tap(model.backbone), _Tap(model.embedding)
    model(views, _samples(LABELS[:5]), mode='loss')
    assert [len(output[0]) for output in calls.outputs] == [10, 10]
    expected = torch.cat([model._features(view) for view in views])
    torch.testing.assert_close(taps.outputs[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('novel', 'shape'), [(True, (2, H, 6, K + N)), (False, (2, 1, 6, K))])
def test_taps_fire_once_with_the_large_views_in_every_mode(novel, shape):
    model = _model(novel, over=novel)
    views = _views(6, (8, 8, 4, 4))
    logits, embedding = _Tap(model.class_logits), _Tap(model.embedding)
    model(views, _samples(LABELS), mode='loss')
    output = model(views)
    model.eval()(views[0], mode='predict')
    assert [tuple(tensor.shape) for tensor in logits.outputs] == [shape, shape, (1, *shape[1:])]
    assert [tuple(tensor.shape) for tensor in embedding.outputs] == [(24, 8), (12, 8), (6, 8)]
    assert output is logits.outputs[1]


def test_tensor_mode_of_one_image_per_sample():
    assert _model(novel=False)(torch.randn(6, 3, 8, 8)).shape == (1, 1, 6, K)


def test_prediction_uses_the_best_head():
    model = _model().eval()
    model.novel_head.update_objective(torch.tensor([3.0, 1.0, 2.0]))
    images = torch.randn(6, 3, 8, 8)
    given = _samples(LABELS)
    samples = model(images, given, mode='predict')
    logits = model(images)[0]
    for row, sample in enumerate(samples):
        assert sample is given[row]
        torch.testing.assert_close(sample.known_logits, logits[0, row, :K])
        torch.testing.assert_close(sample.novel_logits, logits[:, row, K:])
        torch.testing.assert_close(sample.pred_score, (logits[1, row] / 0.1).softmax(0))
        assert sample.pred_label.tolist() == [int(logits[1, row].argmax())]
        assert sample.head_objective.tolist() == [3, 1, 2]
        assert int(sample.gt_label) == LABELS[row]


def test_prediction_without_novel_head():
    samples = _model(novel=False).eval()(torch.randn(6, 3, 8, 8), mode='predict')
    assert len(samples) == 6
    for sample in samples:
        assert set(sample.keys()) == {'known_logits', 'pred_score', 'pred_label'}
        torch.testing.assert_close(sample.pred_score, (sample.known_logits / 0.1).softmax(0))


def test_prediction_fills_the_hosts_samples(host_scope):
    from mmpretrain.structures import DataSample

    (sample,) = _model().eval()(torch.randn(1, 3, 8, 8), [DataSample().set_gt_label(3)], mode='predict')
    assert sample.novel_logits.shape == (H, N)
    assert sample.head_objective.isnan().all()
    assert set(sample.to_dict()) >= {'gt_label', 'known_logits', 'novel_logits', 'pred_score', 'pred_label'}


# Over-clustering.


def test_overclustering_halves_both_objectives_and_keeps_its_own_statistics():
    model = _model(over=True).eval()
    views = _views(6)
    model.normalize_prototypes()
    losses = model(views, _samples(LABELS), mode='loss')
    embedding = model._embed(views)
    for name, head in (('loss_cluster', model.novel_head), ('loss_overcluster', model.overcluster_head)):
        logits = model._join(model.known_head(embedding), embedding, head)
        targets = discovery_targets(logits, torch.tensor(LABELS), num_known=K, num_large=2, assign=model.assign)
        expected = swapped_prediction(logits, targets, num_large=2)
        torch.testing.assert_close(losses[name], expected.mean() / 2)
    model.train()(views, _samples(LABELS), mode='loss')
    assert not torch.equal(model.novel_head.mean_objective, model.overcluster_head.mean_objective)


# Batches at the edge, precision.


@pytest.mark.parametrize('labels', [[0, 1, 2, 3], [-1, -1, -1, -1], [-1, 0, 1, 2], [0, -1, -1, -1]])
@pytest.mark.parametrize('novel', [True, False])
@pytest.mark.parametrize('autocast', [False, True])
def test_any_mixture_of_rows_is_finite_and_differentiable(labels, novel, autocast):
    model = _model(novel, over=novel)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        losses = model(_views(4, (8, 8, 4)), _samples(labels), mode='loss')
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_bfloat16_autocast_stays_close_to_float32():
    model, views = _model().eval(), _views(16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = model(views, _samples([-1] * 16), mode='loss')['loss_cluster']
    full = model(views, _samples([-1] * 16), mode='loss')['loss_cluster']
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)


def test_evaluation_modes_change_nothing():
    model = _model(over=True).eval()
    before = copy.deepcopy(model.state_dict(keep_vars=True))
    model(_views(4), _samples([0, -1, -1, 2]), mode='loss')
    model(_views(4))
    model(_views(1)[0], mode='predict')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict(keep_vars=True).items())


# Checkpoints.


def test_stage_one_loads_into_stage_two():
    stage_one, stage_two = _model(novel=False), _model()
    missing, unexpected = stage_two.load_state_dict(stage_one.state_dict(), strict=False)
    assert unexpected == []
    assert missing
    assert all(key.startswith('novel_head.') for key in missing)


def _train(model, optimizer, batches):
    for views in batches:
        loss = sum(model(views, _samples(LABELS), mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_saving_and_resuming_equals_going_on_to_the_bit():
    batches = [_views(6, (8, 8, 4)) for _ in range(5)]
    model = _model(over=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)
    _train(model, optimizer, batches[:3])
    checkpoint = copy.deepcopy({'model': model.state_dict(), 'optimizer': optimizer.state_dict()})
    for key in ('known_head', 'novel_head', 'overcluster_head'):
        norms = checkpoint['model'][f'{key}.prototypes.weight'].norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
    resumed = _model(over=True)
    resumed.load_state_dict(checkpoint['model'])
    resumed_optimizer = torch.optim.SGD(resumed.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)
    resumed_optimizer.load_state_dict(checkpoint['optimizer'])
    _train(model, optimizer, batches[3:])
    _train(resumed, resumed_optimizer, batches[3:])
    for (name, value), other in zip(model.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(value, other), name
    assert torch.equal(model.novel_head.mean_objective, resumed.novel_head.mean_objective)


def test_saved_model_predicts_as_the_live_one():
    model = _model()
    _train(model, torch.optim.SGD(model.parameters(), lr=0.2), [_views(6)])
    restored = _model()
    restored.load_state_dict(model.state_dict())
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(restored.eval()(images), model.eval()(images))


# Backbones of mmpretrain.


def test_resnet_with_crops_of_two_sizes(host_scope):
    model = _model(backbone={'type': 'ResNet_CIFAR', 'depth': 18}, neck={'type': 'GlobalAveragePooling'}, dim=512)
    loss = model(_views(2, (32, 32, 18, 18)), _samples([1, -1]), mode='loss')['loss_cluster']
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_vision_transformer_trains_its_last_block_only(host_scope):
    arch = {'embed_dims': 12, 'num_layers': 3, 'num_heads': 3, 'feedforward_channels': 24}
    backbone = {'type': 'VisionTransformer', 'arch': arch, 'img_size': 32, 'patch_size': 16, 'frozen_stages': 2}
    model = _model(backbone=backbone, neck=None, dim=12)
    model(_views(4, (32, 32)), _samples([1, -1, -1, 0]), mode='loss')['loss_cluster'].backward()
    learnt = {name for name, parameter in model.backbone.named_parameters() if parameter.grad is not None}
    expected = {name for name, _ in model.backbone.named_parameters() if name.startswith(('layers.2.', 'ln1.'))}
    assert learnt == expected


# Bad input.


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        ({'temperature': 0.0}, ValueError, 'NCDClassifier: expected temperature > 0'),
        ({'assign_to': 'known'}, ValueError, r"expected assign_to in \('novel', 'all'\) but got 'known'"),
        ({'num_large_views': 0}, ValueError, 'NCDClassifier: expected num_large_views > 0'),
        ({'sinkhorn': {'eps': 0.05}}, TypeError, "unexpected keyword argument 'eps'"),
        ({'novel': False, 'over': True}, ValueError, 'expected overcluster_head with a novel_head'),
    ],
)
def test_wrong_settings_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message):
        _model(**kwargs)


def test_maps_without_neck_are_refused():
    with pytest.raises(RuntimeError, match=r'\(rows, D\) .*got \(8, 8, 4, 4\).*neck'):
        _model(neck=None)(_views(4))


def test_generalised_setting_assigns_unlabelled_rows_to_all_classes():
    model, views = _model(assign_to='all', sinkhorn={'num_iters': 20}).eval(), _views(6)
    tap = _Tap(model.class_logits)
    loss = model(views, _samples(LABELS), mode='loss')['loss_cluster']
    (logits,) = tap.outputs
    assigned = torch.stack([torch.stack([model.assign(head) for head in view]) for view in logits])
    labels = torch.tensor(LABELS)
    targets = torch.where((labels < 0)[:, None], assigned, (labels[:, None] == torch.arange(K + N)).float())
    torch.testing.assert_close(loss, swapped_prediction(logits, targets, num_large=2).mean())


def test_too_few_views_are_refused():
    with pytest.raises(ValueError, match=r'2 views, 2 .*got 1'):
        _model()(_views(4, (8,)), _samples([-1] * 4), mode='loss')
    with pytest.raises(ValueError, match=r'2 views, 1 .*got 1'):
        _model(num_large_views=1)(_views(4, (8,)), _samples([-1] * 4), mode='loss')


def test_views_of_different_batches_are_refused():
    with pytest.raises(ValueError, match=r'views .*got \[4, 3\]'):
        _model()([_views(4)[0], _views(3)[0]])


def test_views_are_refused_at_prediction():
    with pytest.raises(ValueError, match='got 2 views'):
        _model().eval()(_views(4), mode='predict')


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"mode .*got 'train'"):
        _model()(_views(4), mode='train')


def test_hidden_label_in_a_training_batch_is_refused():
    with pytest.raises(ValueError, match=r'NCDClassifier: .*unlabelled class'):
        _model()(_views(4), _samples([-1, 0, 1, K]), mode='loss')
