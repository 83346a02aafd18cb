"""ClassRelationLoss is its weight times the function on the unlabelled rows."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmkd_ext.functional import class_relation_kd
from mmkd_ext.losses import ClassRelationLoss

VARIANTS = [
    {},
    {'temperature': 0.2},
    {'kd_temperature': 2.0},
    {'divergence': 'kl'},
    {'weight': 'none'},
    {'weight_temperature': 0.1},
    {'detach_weight': True},
    {'scale_by_squared_temperature': False},
    {'weight_mean': 'per_view_head'},
]
LABELS = torch.tensor([0, -1, 2, -1, -1])


def random_case():
    return torch.rand(2, 4, 5, 6, dtype=torch.float64), torch.rand(2, 1, 5, 3, dtype=torch.float64)


def test_weight_times_function_of_unlabelled_rows():
    student, teacher = random_case()
    rows = [1, 3, 4]
    for settings in VARIANTS:
        result = ClassRelationLoss(0.5, **settings)(student, teacher, labels=LABELS)
        expected = 0.5 * class_relation_kd(student[:, :, rows], teacher[:, :, rows], **settings).mean()
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize('case', ['mix5_5', 'mix7_20', 'all_unlab', 'one_unlab', 'V1_H1'])
def test_official(golden, case):
    vectors = golden('crkd_kd')
    student = torch.from_numpy(vectors[f'{case}_f64_new_logits']).requires_grad_()
    teacher = torch.from_numpy(vectors[f'{case}_f64_old_logits'])
    labels = torch.from_numpy(vectors[f'{case}_mask_lab']).long() - 1
    loss = ClassRelationLoss(loss_weight=1.0)(student, teacher, labels=labels)
    loss.backward()
    assert loss.item() == pytest.approx(float(vectors[f'{case}_f64_loss_mean']), rel=1e-9)
    expected = torch.from_numpy(vectors[f'{case}_f64_grad_new_of_mean'])
    torch.testing.assert_close(student.grad, expected, rtol=1e-9, atol=1e-12)


def test_labelled_rows_do_not_matter():
    student, teacher = random_case()
    loss = ClassRelationLoss()
    expected = loss(student, teacher, labels=LABELS)
    student[:, :, LABELS >= 0] = torch.nan
    teacher[:, :, LABELS >= 0] = torch.nan
    assert loss(student, teacher, labels=LABELS) == expected


def test_no_unlabelled_row_is_a_differentiable_zero():
    student, teacher = random_case()
    loss = ClassRelationLoss()(student.requires_grad_(), teacher, labels=torch.arange(5))
    loss.backward()
    assert loss.shape == ()
    assert loss == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_float32_under_autocast():
    student, teacher = (x.bfloat16() for x in random_case())
    with torch.autocast('cpu', torch.bfloat16):
        loss = ClassRelationLoss()(student, teacher, labels=LABELS)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine', 'mmkd_ext'])
def test_built_from_any_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        loss = MODELS.build({'type': 'mmkd_ext.ClassRelationLoss', 'loss_weight': 0.01})
    assert isinstance(loss, ClassRelationLoss)
    assert loss.loss_weight == 0.01


def test_repr_shows_settings():
    assert repr(ClassRelationLoss(0.01, divergence='kl')) == (
        "ClassRelationLoss(loss_weight=0.01, gather=True, temperature=0.1, kd_temperature=4.0, divergence='kl', "
        "weight='normalized', weight_temperature=None, detach_weight=False, scale_by_squared_temperature=True, "
        "weight_mean='joint')"
    )


def test_has_no_state():
    assert not ClassRelationLoss().state_dict()


def test_refused_at_construction():
    for error, setting, value in (
        (ValueError, 'divergence', 'js'),
        (ValueError, 'temperature', 0.0),
        (TypeError, 'kd_temperature', '4'),
        (ValueError, 'weight', 'eta'),
        (ValueError, 'weight_mean', 'all'),
        (TypeError, 'loss_weight', '0.1'),
        (ValueError, 'loss_weight', -1.0),
    ):
        with pytest.raises(error, match=f'^ClassRelationLoss: expected {setting} .*{value}'):
            ClassRelationLoss(**{setting: value})
    with pytest.raises(TypeError, match='temprature'):
        ClassRelationLoss(temprature=0.1)


@pytest.mark.parametrize('labels', [torch.zeros(4), torch.zeros(5, 1)])
def test_labels_do_not_fit(labels):
    student, teacher = random_case()
    with pytest.raises(ValueError, match=r'ClassRelationLoss: expected labels of shape \(B,\) .* but got \('):
        ClassRelationLoss()(student, teacher, labels=labels)


def test_shapes_do_not_fit():
    student, teacher = random_case()
    with pytest.raises(ValueError, match=r'ClassRelationLoss: expected student of shape \(V, H, B, C\)'):
        ClassRelationLoss()(student[0], teacher, labels=LABELS)
    with pytest.raises(ValueError, match=r'ClassRelationLoss: expected teacher of shape \(V, H, B, K\)'):
        ClassRelationLoss()(student, teacher[0], labels=LABELS)
