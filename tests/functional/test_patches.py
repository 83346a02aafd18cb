"""patch_relation against the plain formulas image by image, its grids, its invariances, and degenerate images."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

import published_relations
from mmkd_ext.functional import patch_relation
from mmkd_ext.scores import linear_cka

F64 = {'rtol': 1e-9, 'atol': 1e-12}
SETTINGS = [
    dict(relation='gram'),
    dict(relation='gram', negatives='clip'),
    dict(relation='gram', negatives='clip-shared'),
    dict(relation='softmax'),
    dict(relation='softmax', temperature=0.5),
    dict(relation='cka'),
]
EVERY = pytest.mark.parametrize('settings', SETTINGS, ids=lambda x: '-'.join(map(str, x.values())))


def random_case(num_patches=9, student_dims=12, teacher_dims=5, num_images=3):
    student = torch.randn(num_images, num_patches, student_dims, dtype=torch.float64)
    return student, torch.randn(num_images, num_patches, teacher_dims, dtype=torch.float64)


def published(student, teacher, relation, **settings):
    return getattr(published_relations, f'patch_{relation}')(student, teacher, **settings)


@EVERY
@pytest.mark.parametrize('dims', [(12, 5), (4, 20), (4, 5)], ids=str)
def test_the_plain_formula_and_its_gradient(settings, dims):
    """With more dims than patches, in one network or both, and with fewer, which takes another way."""
    student, teacher = random_case(9, *dims)
    student.requires_grad_()
    losses = patch_relation(student, teacher, **settings), published(student, teacher, **settings)
    torch.testing.assert_close(*losses, **F64)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in losses), **F64)


@EVERY
@pytest.mark.parametrize('student_dims', [3, 12])
def test_gradcheck(settings, student_dims):
    student, teacher = random_case(9, student_dims)
    assert torch.autograd.gradcheck(lambda s: patch_relation(s, teacher, **settings), (student.requires_grad_(),))


def test_cka_is_that_of_the_scores_and_gram_by_hand():
    student, teacher = random_case()
    expected = 1 - sum(linear_cka(s, t) for s, t in zip(student, teacher, strict=True)) / 3
    torch.testing.assert_close(patch_relation(student, teacher, relation='cka'), expected)
    # Two patches at a right angle in one network, at 60 degrees in the other: half a cosine, at two of four places.
    right = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    sixty = torch.tensor([[[1.0, 0.0], [0.5, 0.75**0.5]]])
    assert patch_relation(right, sixty).item() == pytest.approx(0.125, rel=1e-6)


@EVERY
def test_invariances(settings):
    student, teacher = random_case()
    expected = patch_relation(student, teacher, **settings)
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    torch.testing.assert_close(patch_relation(7 * student @ rotation, teacher, **settings), expected)
    order = torch.randperm(9)
    torch.testing.assert_close(patch_relation(student[:, order], teacher[:, order], **settings), expected)
    if settings['relation'] == 'cka':
        changed = student + torch.randn(3, 1, 12, dtype=torch.float64)
    else:
        changed = student * torch.logspace(-3, 3, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(patch_relation(changed, teacher, **settings), expected)
    assert patch_relation(teacher, teacher, **settings).abs() < 1e-14


@EVERY
def test_prefix_tokens_are_left_out(settings):
    student, teacher = random_case()
    expected = patch_relation(student, teacher, **settings)
    longer = [torch.cat([torch.randn_like(x[:, :n]), x], dim=1) for x, n in ((student, 5), (teacher, 1))]
    longer[0].requires_grad_()
    loss = patch_relation(*longer, num_prefix=(5, 1), **settings)
    torch.testing.assert_close(loss, expected, **F64)
    loss.backward()
    assert (longer[0].grad[:, :5] == 0).all()
    same = torch.cat([torch.randn_like(teacher[:, :5]), teacher], dim=1)
    torch.testing.assert_close(patch_relation(longer[0], same, num_prefix=5, **settings), expected, **F64)


def tokens_of(x):
    return x.flatten(2).transpose(1, 2)


@EVERY
def test_maps_and_tokens_of_any_grid(settings):
    """The finer is averaged to the coarser; tokens stand for a square grid."""
    coarse = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    fine = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    expected = published(tokens_of(adaptive_avg_pool2d(fine, 3)), tokens_of(coarse), **settings)
    for student in (fine, tokens_of(fine)):
        for teacher in (coarse, tokens_of(coarse)):
            torch.testing.assert_close(patch_relation(student, teacher, **settings), expected, **F64)
    fine.requires_grad_()
    losses = [patch_relation(x, tokens_of(coarse), **settings) for x in (fine, tokens_of(fine))]
    torch.testing.assert_close(*(torch.autograd.grad(loss, fine)[0] for loss in losses), **F64)
    # Of maps that are not square each axis has its own.
    wide = torch.randn(2, 6, 2, 9, dtype=torch.float64)
    pooled = [tokens_of(adaptive_avg_pool2d(x, (2, 6))) for x in (fine.detach(), wide)]
    torch.testing.assert_close(patch_relation(fine, wide, **settings), published(*pooled, **settings), **F64)


@EVERY
def test_degenerate_images_are_finite(settings):
    _, teacher = random_case()
    same = torch.ones(3, 9, 12)
    for student in (same, 0 * same, 1e18 * torch.randn(3, 9, 12), 1e-18 * torch.randn(3, 9, 12)):
        for other in (teacher.float(), same):
            leaf = student.clone().requires_grad_()
            loss = patch_relation(leaf, other, **settings)
            loss.backward()
            assert loss.isfinite()
            assert leaf.grad.isfinite().all()
    torch.testing.assert_close(
        patch_relation(1e18 * teacher.float(), teacher.float(), **settings), torch.tensor(0.0), atol=1e-6, rtol=0
    )


def test_nothing_to_relate_is_a_differentiable_zero():
    for shape in ((0, 9, 4), (3, 1, 4)):
        student = torch.randn(shape, requires_grad=True)
        loss = patch_relation(student, torch.randn(shape))
        loss.backward()
        assert loss == 0
        assert (student.grad == 0).all()


@EVERY
@pytest.mark.parametrize('student_dims', [4, 12])
def test_half_precision_is_computed_in_float32(settings, student_dims):
    student, teacher = (x.bfloat16() for x in random_case(9, student_dims))
    student.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        loss = patch_relation(student, teacher, **settings)
        (gradient,) = torch.autograd.grad(loss, student)
    full = student.detach().float().requires_grad_()
    expected = patch_relation(full, teacher.float(), **settings)
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, full)[0].bfloat16(), rtol=1e-2, atol=1e-6)


def test_no_gradient_into_teacher_none_twice_and_one_after_the_other():
    student, teacher = random_case()
    loss = patch_relation(student.requires_grad_(), teacher.requires_grad_())
    first, second = (torch.autograd.grad(loss, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    loss.backward(retain_graph=True)
    assert teacher.grad is None
    with pytest.raises(RuntimeError, match=r'patch_relation: expected a first-order backward'):
        torch.autograd.grad(loss, student, create_graph=True)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r'expected tokens of a square grid, .* but got 10'):
        patch_relation(torch.zeros(2, 10, 4), torch.zeros(2, 9, 4))
    with pytest.raises(ValueError, match=r'expected teacher of shape \(N, L, D\) or \(N, C, H, W\) but got \(2, 4\)'):
        patch_relation(torch.zeros(2, 9, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'patch_relation: expected num_prefix >= 0'):
        patch_relation(torch.zeros(2, 9, 4), torch.zeros(2, 9, 4), num_prefix=(1, 2, 3))
