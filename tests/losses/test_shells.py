"""Every registered loss in one way: its weight times its function, weight first, settings by name and all shown."""

import inspect

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmkd_ext import functional, losses
from mmkd_ext.losses.base import GatheredLoss, RelationLoss, WeightedLoss

LABELS = torch.tensor([0, 0, 1, 2, 1, 2])
# Name: function, default weight, other defaults in the order shown, settings to try, settings that are refused.
RKD_DEFAULTS = dict(gather=False, delta=1.0, reduction='official')
RKD_TRIED = [dict(delta=0.5, reduction='distinct')]
RKD_REFUSED = {'reduction': 'mean', 'delta': 0.0}
SHELLS = {
    'AttentionTransferLoss': ('attention_transfer', 1000.0, {}, [], {}),
    'CCKDLoss': (
        'correlation_congruence',
        100.0,
        dict(gather=False, kernel='gaussian', gamma=0.4, order=None, normalize=True),
        [dict(order=2, gamma=0.8), dict(gamma='median'), dict(kernel='mmd', normalize=False)],
        {'kernel': 'rbf', 'gamma': -1.0, 'order': 0},
    ),
    'CategoryCentreLoss': ('centre_regulariser', 0.1, dict(gather=False), [], {}),
    'DISTLoss': (
        'prediction_correlation',
        1.0,
        dict(gather=False, beta=1.0, gamma=1.0, temperature=1.0, multi_label=False, standardize=False),
        [dict(beta=2.0, gamma=0.5, temperature=4.0), dict(multi_label=True), dict(standardize=True)],
        {'temperature': 0.0, 'beta': -1.0, 'gamma': -1.0},
    ),
    'HardDarkRankLoss': (
        'hard_dark_rank',
        1.0,
        dict(gather=False, alpha=3.0, beta=3.0, permute_len=4, normalize=True),
        [dict(alpha=2.0, beta=1.0, permute_len=3, normalize=False)],
        {'alpha': 0.0, 'beta': -1.0, 'permute_len': 1},
    ),
    'InterCategoryLoss': (
        'inter_category',
        1.0,
        dict(gather=False, reduction='mean'),
        [dict(reduction='official')],
        {'reduction': 'sum'},
    ),
    'IntraCategoryLoss': (
        'intra_category',
        1.0,
        dict(gather=False, filtered=False, detach_centre=False, reduction='sample'),
        [dict(detach_centre=True, reduction='official')],
        {'reduction': 'sum'},
    ),
    'KDLoss': (
        'soft_target',
        1.0,
        dict(temperature=4.0, standardize=False),
        [dict(temperature=2.0, standardize=True)],
        {'temperature': 0.0},
    ),
    'MLKDLoss': (
        'batch_class_correlation',
        1.0,
        dict(gather=False, temperature=4.0, batch_weight=1.0, class_weight=1.0),
        [dict(temperature=2.0, batch_weight=0.5, class_weight=0.25)],
        {'temperature': 0.0, 'batch_weight': -1.0, 'class_weight': -1.0},
    ),
    'PKTLoss': (
        'probabilistic_transfer',
        30000.0,
        dict(gather=False, form='official'),
        [dict(form='paper')],
        {'form': 'mean'},
    ),
    'PatchRelationLoss': (
        'patch_relation',
        1.0,
        dict(relation='gram', temperature=0.07, negatives='keep', num_prefix=0),
        [dict(relation='softmax', temperature=0.1), dict(relation='cka'), dict(negatives='clip')],
        {'relation': 'rkd', 'temperature': 0.0, 'negatives': 'drop', 'num_prefix': -1},
    ),
    'RKDAngleLoss': ('rkd_angle', 1.0, RKD_DEFAULTS, RKD_TRIED, RKD_REFUSED),
    'RKDDistanceLoss': ('rkd_distance', 1.0, RKD_DEFAULTS, RKD_TRIED, RKD_REFUSED),
    'SKDLoss': (
        'similarity_direction',
        0.45,
        dict(gather=False, tikhonov=0.1),
        [dict(tikhonov=1.0)],
        {'tikhonov': 0.0},
    ),
    'SPLoss': ('similarity_preserving', 3000.0, dict(gather=False), [], {}),
    'WKDLoss': (
        'class_transport',
        1.0,
        dict(separate=True, temperature=2.0, epsilon=0.05, num_iters=10, target_weight=0.0),
        [dict(temperature=4.0, epsilon=0.1, num_iters=3, target_weight=0.5)],
        {'temperature': 0.0, 'epsilon': 0.0, 'num_iters': 0, 'target_weight': -1.0},
    ),
}
# These have their own tests, as their forward takes something else; what is asked of the signature holds for them, too.
OTHERS = {'ClassRelationLoss', 'ContrastiveLoss', 'TripletLoss', 'TupleRelationLoss'}
BASES = {'LabelledRelationLoss', 'RelationLoss'}
FORMER_NAMES = {'SoftTargetLoss'}
EVERY = pytest.mark.parametrize('name', SHELLS)


def batch_of(name):
    shape = (6, 4, 3, 3) if name in {'AttentionTransferLoss', 'PatchRelationLoss'} else (6, 4)
    return torch.randn(shape), torch.randn(shape)


def build(name, **settings):
    return MODELS.build(dict(type=f'mmkd_ext.{name}', **settings))


def test_no_loss_is_left_out():
    assert SHELLS.keys() | OTHERS | BASES | FORMER_NAMES == set(losses.__all__)


@EVERY
def test_weight_times_function(name):
    word, _, _, tried, _ = SHELLS[name]
    student, teacher = batch_of(name)
    for settings in ({}, *tried):
        wanted = {'temperature': 4.0, **settings} if name == 'KDLoss' else settings  # the function has no default
        loss = build(name, loss_weight=0.5, **settings)
        takes_labels = 'labels' in inspect.signature(loss.forward).parameters
        given = {'labels': LABELS} if takes_labels else {}
        inputs = (student,) if name == 'CategoryCentreLoss' else (student, teacher)
        expected = getattr(functional, word)(*inputs, **given, **wanted)
        torch.testing.assert_close(loss(student, teacher, **given), 0.5 * expected)


@EVERY
def test_built_from_any_scope_all_settings_are_shown_and_there_is_no_state(name):
    _, weight, defaults, _, _ = SHELLS[name]
    shown = ', '.join(f'{key}={value!r}' for key, value in dict(loss_weight=weight, **defaults).items())
    for scope in ('mmpretrain', 'mmengine'):
        with DefaultScope.overwrite_default_scope(scope):
            loss = build(name)
        assert repr(loss) == f'{name}({shown})'
        assert loss.loss_weight == weight
        assert not list(loss.parameters())
        assert not loss.state_dict()


@EVERY
def test_what_is_refused_at_construction(name):
    for setting, value in {**SHELLS[name][-1], 'loss_weight': -1.0}.items():
        with pytest.raises(ValueError, match=rf'^{name}: expected {setting} .*{value}'):
            build(name, **{setting: value})
    with pytest.raises(TypeError, match=rf"^{name}: expected loss_weight .* number .*'1'"):
        build(name, loss_weight='1')


@pytest.mark.parametrize('name', sorted(SHELLS.keys() | OTHERS))
def test_one_way_to_call_all(name):
    """The weight first and optional, everything else by name; gather is off where samples have to travel."""
    shell = getattr(losses, name)
    assert issubclass(shell, WeightedLoss)
    weight, *others = inspect.signature(shell).parameters.values()
    assert weight.name == 'loss_weight'
    assert all(x.kind in (x.KEYWORD_ONLY, x.VAR_KEYWORD) for x in others)
    assert shell().loss_weight == weight.default == shell(weight.default).loss_weight
    assert shell(0.25).loss_weight == 0.25
    named = {x.name: x for x in others}
    assert issubclass(shell, GatheredLoss) == ('gather' in named)
    if 'gather' in named:
        assert shell().gather is named['gather'].default is (name == 'ClassRelationLoss')
    if issubclass(shell, RelationLoss):
        student, teacher, *extras = list(inspect.signature(shell.relation).parameters.values())[1:]
        assert [student.name, teacher.name] == ['student', 'teacher']
        assert all(x.kind in (x.KEYWORD_ONLY, x.VAR_KEYWORD) for x in extras)
        assert shell.row_sharded == ('rows' in {x.name for x in extras})


def test_objective_of_cckd_by_weights():
    # alpha CE + (1 - alpha) KD + beta CC, each with its weight where a config writes it.
    alpha, beta, temperature = 0.3, 20.0, 4.0
    logits, teacher = torch.randn(6, 5), torch.randn(6, 5)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    task = MODELS.build({'type': 'mmpretrain.CrossEntropyLoss', 'loss_weight': alpha})
    kd = build('KDLoss', temperature=temperature, loss_weight=1 - alpha)
    cc = build('CCKDLoss', loss_weight=beta, order=2)
    soft = torch.nn.functional.softmax
    p, q = soft(teacher / temperature, 1), soft(logits / temperature, 1)
    expected = alpha * torch.nn.functional.cross_entropy(logits, labels)
    expected += (1 - alpha) * temperature**2 * (p * (p / q).log()).sum() / 6
    expected += beta * functional.correlation_congruence(logits, teacher, order=2)
    torch.testing.assert_close(task(logits, labels) + kd(logits, teacher) + cc(logits, teacher), expected)


def test_former_name_of_kd_keeps_its_calls():
    student, teacher = torch.randn(2, 5, 7).unbind()
    expected = losses.KDLoss(0.5, temperature=2.0)(student, teacher)
    by_name = build('SoftTargetLoss', temperature=2.0, loss_weight=0.5)
    assert isinstance(by_name, losses.SoftTargetLoss)
    assert repr(by_name) == 'SoftTargetLoss(loss_weight=0.5, temperature=2.0, standardize=False)'
    assert torch.equal(by_name(student, teacher), expected)
    for call in (lambda kind: kind(2.0, 0.5), lambda kind: kind(2.0, loss_weight=0.5)):
        with pytest.warns(DeprecationWarning, match='temperature comes first'):
            loss = call(losses.SoftTargetLoss)
        assert torch.equal(loss(student, teacher), expected)
    with pytest.raises(ValueError, match=r'^SoftTargetLoss: expected temperature > 0 .*0\.0'):
        build('SoftTargetLoss', temperature=0.0)
