"""Every relation loss on inputs that break published code: finite, with a bounded gradient, NaN named.

The bound: with weight 1, the gradient of the whole batch is shorter than 10; where vectors and not directions or
distances' ratios are compared (intra-category, centre regulariser), shorter than 10 times the longest sample.
"""

import inspect
import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmkd_ext import losses
from mmkd_ext.registry import MODELS

NUM_SAMPLES = 8
SIDES = ('student', 'teacher')
VECTORS, LOGITS, MAPS = ((16,), (24,)), ((16,), (16,)), ((4, 3, 3), (6, 3, 3))
PATCHES = ((9, 16), (16, 24))
# Name: type, settings, shapes of a sample in student and teacher.
LOSSES = {
    'SP': ('SPLoss', {}, VECTORS),
    'SP, maps': ('SPLoss', {}, ((4, 3, 3), (6, 2, 2))),
    'CCKD': ('CCKDLoss', {}, VECTORS),
    'CCKD, order 2': ('CCKDLoss', {'order': 2}, VECTORS),
    'CCKD, median': ('CCKDLoss', {'gamma': 'median'}, VECTORS),
    'CCKD, raw': ('CCKDLoss', {'normalize': False}, VECTORS),
    'CCKD, raw, order 5': ('CCKDLoss', {'normalize': False, 'order': 5}, VECTORS),
    'CCKD, bilinear': ('CCKDLoss', {'kernel': 'bilinear'}, VECTORS),
    'CCKD, mmd': ('CCKDLoss', {'kernel': 'mmd'}, VECTORS),
    'CSKD intra': ('IntraCategoryLoss', {}, VECTORS),
    'CSKD intra, filtered': ('IntraCategoryLoss', {'filtered': True, 'detach_centre': True}, LOGITS),
    'CSKD inter': ('InterCategoryLoss', {}, VECTORS),
    'CSKD centre': ('CategoryCentreLoss', {}, LOGITS),
    'RKD distance': ('RKDDistanceLoss', {}, VECTORS),
    'RKD angle': ('RKDAngleLoss', {}, VECTORS),
    'tuples, simplex': ('TupleRelationLoss', {}, VECTORS),
    'tuples, analogy': ('TupleRelationLoss', {'potential': 'analogy'}, VECTORS),
    'tuples, half of an epoch': ('TupleRelationLoss', {'fraction': 0.5}, VECTORS),
    'PKT': ('PKTLoss', {}, VECTORS),
    'PKT, paper': ('PKTLoss', {'form': 'paper'}, VECTORS),
    'patches, Gram': ('PatchRelationLoss', {}, PATCHES),
    'patches, Gram, clipped': ('PatchRelationLoss', {'negatives': 'clip'}, PATCHES),
    'patches, softmax': ('PatchRelationLoss', {'relation': 'softmax', 'temperature': 1.0}, PATCHES),
    'patches, CKA': ('PatchRelationLoss', {'relation': 'cka'}, PATCHES),
    'patches, CKA, maps': ('PatchRelationLoss', {'relation': 'cka'}, MAPS),
    'DarkRank': ('HardDarkRankLoss', {}, VECTORS),
    'AT': ('AttentionTransferLoss', {}, MAPS),
    'MLKD': ('MLKDLoss', {}, LOGITS),
    'MLKD, cold': ('MLKDLoss', {'temperature': 1.0}, LOGITS),
    'SKD': ('SKDLoss', {}, LOGITS),
    'WKD-L': ('WKDLoss', {}, LOGITS),
    'WKD-L, cold, with target': ('WKDLoss', {'temperature': 1.0, 'target_weight': 1.0}, LOGITS),
    'WKD-L, not separated': ('WKDLoss', {'separate': False}, LOGITS),
    'KD': ('KDLoss', {'temperature': 4.0}, LOGITS),
    'KD, standardised': ('KDLoss', {'temperature': 2.0, 'standardize': True}, LOGITS),
    'DIST': ('DISTLoss', {}, LOGITS),
    # Its square is a factor of the loss.
    'DIST, warm': ('DISTLoss', {'temperature': 4.0, 'beta': 1 / 16, 'gamma': 1 / 16}, LOGITS),
    'DIST, standardised': ('DISTLoss', {'standardize': True}, LOGITS),
    'DIST, many labels': ('DISTLoss', {'multi_label': True}, LOGITS),
    'DIST, maps': ('DISTLoss', {}, ((4, 3, 3), (4, 3, 3))),
}
COMPARES_VECTORS = {'CSKD intra', 'CSKD intra, filtered', 'CSKD centre'}


# Views and heads, or embeddings of one network: their tests of the function have the degenerate batches.
OTHER_INPUT = {'ClassRelationLoss', 'ContrastiveLoss', 'LabelledRelationLoss', 'RelationLoss', 'TripletLoss'}
FORMER_NAMES = {'SoftTargetLoss'}


def batch_of(shape, labels):
    """Random samples, in which the value at the label's place is usually the largest."""
    x = torch.randn(NUM_SAMPLES, *shape)
    x.view(NUM_SAMPLES, -1)[torch.arange(NUM_SAMPLES), labels] += 2
    return x


def first_two_equal(x):
    return torch.cat([x[:1], x[:1], x[2:]])


def of_norm(x, norm):
    return norm * x / x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def without_rows(x, *rows):
    x = x.clone()
    x[list(rows)] = 0
    return x


INPUTS = {
    'ordinary': lambda s, t, y: (s, t, y),
    'one sample': lambda s, t, y: (s[:1], t[:1], y[:1]),
    'two samples': lambda s, t, y: (s[:2], t[:2], y[:2]),
    'all equal': lambda s, t, y: (s[:1].expand_as(s), t[:1].expand_as(t), y),
    'all equal in student': lambda s, t, y: (s[:1].expand_as(s), t, y),
    'two equal in student': lambda s, t, y: (first_two_equal(s), t, y),
    'two equal in both': lambda s, t, y: (first_two_equal(s), first_two_equal(t), y),
    'one class': lambda s, t, y: (s, t, torch.zeros_like(y)),
    'own classes': lambda s, t, y: (s, t, torch.arange(NUM_SAMPLES)),
    'zero vectors': lambda s, t, y: (without_rows(s, 0, 1), without_rows(t, 1, 2), y),
    'zero student': lambda s, t, y: (torch.zeros_like(s), t, y),
    'norm 1e4': lambda s, t, y: (of_norm(s, 1e4), of_norm(t, 1e4), y),
    'offset 1e3': lambda s, t, y: (1e3 + 0.1 * s, 1e3 + 0.1 * t, y),
}


def loss_and_gradient(loss_name, input_name, dtype):
    """Loss and gradient of a degenerate batch, and the length of its longest sample."""
    type_name, settings, shapes = LOSSES[loss_name]
    labels = torch.arange(NUM_SAMPLES) // 2
    student, teacher, labels = INPUTS[input_name](*(batch_of(shape, labels) for shape in shapes), labels)
    student = student.to(dtype).requires_grad_()
    loss = run(type_name, settings, student, teacher.to(dtype), labels)
    loss.backward()
    return loss.detach(), student.grad, student.detach().float().flatten(1).norm(dim=1).max()


def run(type_name, settings, student, teacher, labels):
    module = MODELS.build(dict(type=type_name, loss_weight=1.0, **settings))
    extras = {'labels': labels, 'iteration': 0, 'sample_ids': torch.arange(len(student))}
    taken = inspect.signature(module.forward).parameters
    return module(student, teacher, **{name: value for name, value in extras.items() if name in taken})


def test_no_loss_is_left_out():
    assert {type_name for type_name, _, _ in LOSSES.values()} == set(losses.__all__) - OTHER_INPUT - FORMER_NAMES


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def assert_all(check, *choices):
    """Check every combination of the choices, each from the same seed; say of all that fail why."""
    failed = []
    for case in itertools.product(*choices):
        torch.manual_seed(0)
        try:
            check(*case)
        except Exception as error:
            failed.append(f'{", ".join(map(str, case))}: {type(error).__name__} {error}')
    assert not failed, f'{len(failed)} cases:\n' + '\n'.join(failed)


def test_finite_and_bounded():
    def check(loss_name, input_name, dtype):
        loss, gradient, longest = loss_and_gradient(loss_name, input_name, dtype)
        assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
        assert loss.isfinite(), loss
        assert loss >= 0, loss
        assert gradient.isfinite().all(), gradient
        bound = 10 * (longest.clamp(min=1) if loss_name in COMPARES_VECTORS else 1)
        assert gradient.float().norm() < bound, gradient.float().norm()

    assert_all(check, LOSSES, INPUTS, DTYPES)


def test_nan_is_named():
    """Of the student or the teacher; the regulariser of centres looks at the student alone."""

    def check(loss_name, name, dtype):
        type_name, settings, shapes = LOSSES[loss_name]
        features = {side: torch.randn(4, *shape, dtype=dtype) for side, shape in zip(SIDES, shapes, strict=True)}
        features[name][2, 0] = torch.nan
        with pytest.raises(ValueError, match=rf'numbers in {name} .*NaN'):
            run(type_name, settings, **features, labels=torch.arange(4))

    assert_all(check, LOSSES, ['student'], DTYPES)
    assert_all(check, LOSSES.keys() - {'CSKD centre'}, ['teacher'], DTYPES)


def test_on_a_gpu_the_host_reads_no_value():
    """Fake tensors have no values: whoever asks for one gets an error, where it would wait for a real GPU."""

    def check(loss_name):
        type_name, settings, shapes = LOSSES[loss_name]
        with FakeTensorMode():
            student, teacher = (torch.randn(4, *shape, device='cuda') for shape in shapes)
            loss = run(type_name, settings, student, teacher, torch.zeros(4, dtype=torch.int64, device='cuda'))
        assert loss.device.type == 'cuda'

    # RKD's operator hides what it does from them.
    assert_all(check, [name for name in LOSSES if not name.startswith('RKD')])
