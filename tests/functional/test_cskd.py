"""CSKD against loops in float64, degenerate batches, and the projection of features to one width."""

import math

import pytest
import torch

from mmkd_ext.functional import centre_regulariser, cskd, inter_category, intra_category
from mmkd_ext.functional.cskd import match_channels

LABELS = torch.tensor([4, 0, 4, 4, 7, 0, 9, 7])


def random_case(student_dims=5, teacher_dims=5):
    shape = len(LABELS), student_dims
    return torch.randn(*shape, dtype=torch.float64), torch.randn(len(LABELS), teacher_dims, dtype=torch.float64)


def looped_centre(rows):
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def looped_deviations(x, labels, correct):
    rows, labels = x.tolist(), labels.tolist()
    deviations = []
    for row, label in zip(rows, labels, strict=True):
        members = [r for r, y, c in zip(rows, labels, correct, strict=True) if y == label and c]
        centre = looped_centre(members) if members and label >= 0 else row
        deviations.append([a - b for a, b in zip(row, centre, strict=True)])
    return deviations


def looped_intra(student, teacher, labels, student_correct=None, teacher_correct=None):
    all_correct = [True] * len(labels)
    s = looped_deviations(student, labels, all_correct if student_correct is None else student_correct.tolist())
    t = looped_deviations(teacher, labels, all_correct if teacher_correct is None else teacher_correct.tolist())
    labelled = sum(label >= 0 for label in labels.tolist())
    return sum(math.dist(a, b) ** 2 for a, b in zip(s, t, strict=True)) / labelled


def looped_inter(student, teacher, labels):
    categories = sorted({label for label in labels.tolist() if label >= 0})
    cosines = []
    for x in (student, teacher):
        centres = [looped_centre(x[labels == category].tolist()) for category in categories]
        cosines.append([[looped_cosine(a, b) for b in centres] for a in centres])
    squares = [(s - t) ** 2 for a, b in zip(*cosines, strict=True) for s, t in zip(a, b, strict=True)]
    return math.fsum(squares) / len(categories) ** 2


def looped_cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.fixture
def dossier():
    student = torch.tensor([[2, 0], [0, 1], [0, 2], [1, 1]], dtype=torch.float64)
    teacher = torch.tensor([[3, 0], [1, 0], [0, 3], [0, 1]], dtype=torch.float64)
    return student, teacher, torch.tensor([0, 0, 1, 1])


def test_vectors_of_the_dossier(dossier):
    student, _, labels = dossier
    assert intra_category(*dossier).item() == pytest.approx(0.375, abs=1e-12)
    assert intra_category(*dossier, reduction='element').item() == pytest.approx(0.1875, abs=1e-12)
    assert intra_category(*dossier, reduction='official').item() == pytest.approx(0.09375, abs=1e-12)
    assert inter_category(*dossier).item() == pytest.approx(0.25, abs=1e-12)
    assert inter_category(*dossier, reduction='official').item() == pytest.approx(0.125, abs=1e-12)
    assert centre_regulariser(student, labels).item() == pytest.approx(0.4375, abs=1e-12)


def test_filtered_centres_of_the_dossier(dossier):
    # The student is right on its first and third sample: its centres are (2, 0) and (0, 2), by hand.
    student, teacher, labels = dossier
    correct = torch.tensor([True, False, True, False])
    deviations = student - torch.tensor([[2, 0], [2, 0], [0, 2], [0, 2]])
    expected = (teacher - torch.tensor([[2, 0], [2, 0], [0, 2], [0, 2]]) - deviations).square().sum() / 4
    torch.testing.assert_close(intra_category(student, teacher, labels, student_correct=correct), expected)


@pytest.mark.parametrize('labels', [LABELS, torch.zeros(8, dtype=torch.int64), torch.arange(8) * 1000], ids=str)
def test_loops(labels):
    student, teacher = random_case()
    assert intra_category(student, teacher, labels).item() == pytest.approx(
        looped_intra(student, teacher, labels), rel=1e-12, abs=1e-28
    )
    student, teacher = random_case(5, 3)
    assert inter_category(student, teacher, labels).item() == pytest.approx(
        looped_inter(student, teacher, labels), rel=1e-10, abs=1e-28
    )


def test_loops_with_filtered_centres():
    student, teacher = random_case()
    # Category 0 has no sample that the student gets right, category 9 none that the teacher does.
    masks = dict(
        student_correct=torch.tensor([True, False, False, True, True, False, True, False]),
        teacher_correct=torch.tensor([False, True, True, True, False, True, False, True]),
    )
    result = intra_category(student, teacher, LABELS, **masks)
    assert result.item() == pytest.approx(looped_intra(student, teacher, LABELS, **masks), rel=1e-12)


def test_unlabelled_samples_take_no_part():
    labels = torch.tensor([4, -1, 4, 4, 7, -1, 9, 7])
    student, teacher = random_case()
    student.requires_grad_()
    kept = labels >= 0
    for function in (intra_category, inter_category):
        loss = function(student, teacher, labels)
        torch.testing.assert_close(loss, function(student[kept], teacher[kept], labels[kept]))
        (gradient,) = torch.autograd.grad(loss, student)
        assert (gradient[~kept] == 0).all()
    torch.testing.assert_close(centre_regulariser(student, labels), centre_regulariser(student[kept], labels[kept]))


@pytest.mark.parametrize('function', [intra_category, inter_category])
def test_only_unlabelled_samples_are_a_differentiable_zero(function):
    student, teacher = random_case()
    loss = function(student.requires_grad_(), teacher, torch.full((8,), -1))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_gradcheck():
    student, teacher = random_case(4, 6)
    student.requires_grad_()
    correct = torch.arange(8) % 3 > 0
    for function in (
        lambda s: intra_category(s, teacher, LABELS),
        lambda s: intra_category(s, teacher, LABELS, student_correct=correct),
        lambda s: inter_category(s, teacher, LABELS),
        lambda s: centre_regulariser(s, LABELS),
    ):
        assert torch.autograd.gradcheck(function, (student,))


def test_detached_centre_matters_with_filtered_centres_only():
    student, teacher = random_case()
    student.requires_grad_()
    correct = torch.arange(8) % 3 > 0
    for mask, equal in ((None, True), (correct, False)):
        gradients = [
            torch.autograd.grad(
                intra_category(student, teacher, LABELS, student_correct=mask, detach_centre=detach), student
            )[0]
            for detach in (True, False)
        ]
        assert torch.allclose(*gradients, rtol=1e-12, atol=1e-14) == equal


def test_official_loss_of_one_step():
    """The terms of ``train_cifar.py`` written out with a loop over categories; also the gradient."""
    student, teacher = random_case()
    student_correct, teacher_correct = torch.arange(8) % 3 > 0, torch.arange(8) % 2 > 0

    def filtered_centres(x, correct):
        centres = x.clone()
        for category in LABELS.unique():
            members = (category == LABELS) & correct
            if members.any():
                centres[category == LABELS] = x[members].mean(dim=0)
        return centres

    expected_student = student.clone().requires_grad_()
    deviation = expected_student - filtered_centres(expected_student, student_correct).detach()
    target = teacher - filtered_centres(teacher, teacher_correct)
    expected = torch.nn.functional.mse_loss(target, deviation) / student.shape[1]
    expected.backward()

    result = intra_category(
        student.requires_grad_(),
        teacher,
        LABELS,
        student_correct=student_correct,
        teacher_correct=teacher_correct,
        detach_centre=True,
        reduction='official',
    )
    result.backward()
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(student.grad, expected_student.grad)


@pytest.mark.parametrize('function', [intra_category, inter_category])
def test_permutation_invariant_whatever_the_categories_are_called(function):
    student, teacher = random_case()
    rows = torch.randperm(8)
    torch.testing.assert_close(
        function(student[rows], teacher[rows], 3 * LABELS[rows] + 1), function(student, teacher, LABELS)
    )


@pytest.mark.parametrize('function', [intra_category, inter_category])
def test_zero_for_an_equal_teacher(function):
    _, teacher = random_case()
    student = teacher.clone().requires_grad_()
    loss = function(student, teacher, LABELS)
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_intra_is_blind_to_where_the_centres_are():
    student, teacher = random_case()
    shifts = torch.randn(10, 5, dtype=torch.float64)[LABELS]
    torch.testing.assert_close(
        intra_category(student + shifts, teacher, LABELS), intra_category(student, teacher, LABELS)
    )


def test_inter_is_blind_to_rotation_scale_and_what_happens_inside_a_category():
    student, teacher = random_case()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    inside = torch.randn(8, 5, dtype=torch.float64)
    for category in LABELS.unique():
        inside[category == LABELS] -= inside[category == LABELS].mean(dim=0)
    torch.testing.assert_close(
        inter_category(3 * (student + inside) @ rotation, teacher, LABELS), inter_category(student, teacher, LABELS)
    )


def test_widths_may_differ():
    for dims in ((5, 12), (12, 5)):
        student, teacher = random_case(*dims)
        loss = intra_category(student.requires_grad_(), teacher, LABELS)
        loss.backward()
        assert loss > 0
        assert student.grad.abs().sum() > 0
    maps = torch.randn(8, 4, 3, 3, requires_grad=True), torch.randn(8, 6, 3, 3)
    intra_category(*maps, LABELS).backward()
    assert maps[0].grad.abs().sum() > 0


def test_centres_at_zero_are_finite():
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], requires_grad=True)
    loss = inter_category(student, torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.norm() < 1


def test_deviations_survive_a_common_offset():
    student, teacher = (x.float() for x in random_case())
    torch.testing.assert_close(
        intra_category(0.1 * student + 1000, 0.1 * teacher + 1000, LABELS).double(),
        intra_category((0.1 * student + 1000).double(), (0.1 * teacher + 1000).double(), LABELS),
        rtol=1e-5,
        atol=0,
    )


def test_no_gradient_into_teacher():
    student, teacher = (x.requires_grad_() for x in random_case())
    (intra_category(student, teacher, LABELS) + inter_category(student, teacher, LABELS)).backward()
    assert teacher.grad is None


@pytest.mark.parametrize('function', [intra_category, inter_category])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast_is_computed_in_float32(function, dtype):
    student, teacher = (x.to(dtype) for x in random_case())
    with torch.autocast('cpu', torch.bfloat16):
        loss = function(student, teacher, LABELS)
    torch.testing.assert_close(loss, function(student.float(), teacher.float(), LABELS), rtol=0, atol=0)


@pytest.mark.parametrize('num_samples', [0, 1])
@pytest.mark.parametrize('function', [intra_category, inter_category])
def test_fewer_than_two_samples_are_a_differentiable_zero(function, num_samples):
    student = torch.randn(num_samples, 3, requires_grad=True)
    loss = function(student, torch.randn(num_samples, 3), LABELS[:num_samples])
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize('function', [intra_category, inter_category])
def test_compiles_without_a_break(function):
    student, teacher = random_case()
    torch.compiler.reset()  # all functions share one wrapper, and with it the limit of recompilations
    compiled = torch.compile(function, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(student, teacher, LABELS), function(student, teacher, LABELS))


@pytest.mark.parametrize('function', [intra_category, inter_category])
def test_bad_input(function):
    caller = function.__name__
    student, teacher = random_case()
    with pytest.raises(ValueError, match=rf'{caller}: expected integer labels of shape \(8,\) but got .*\(7,\)'):
        function(student, teacher, LABELS[:7])
    with pytest.raises(ValueError, match=rf'{caller}: expected integer labels of shape \(8,\) but got torch.float32'):
        function(student, teacher, LABELS.float())
    with pytest.raises(ValueError, match=rf'{caller}: expected student and teacher of shape \(N, ...\)'):
        function(student, teacher[:7], LABELS)
    with pytest.raises(ValueError, match=rf"{caller}: expected reduction in .* but got 'sum'"):
        function(student, teacher, LABELS, reduction='sum')


def test_intra_needs_maps_of_one_size():
    with pytest.raises(ValueError, match=r'maps of one size but got student \(8, 4, 3, 3\), teacher \(8, 4, 2, 2\)'):
        intra_category(torch.zeros(8, 4, 3, 3), torch.zeros(8, 4, 2, 2), LABELS)


@pytest.mark.parametrize('dtypes', [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@pytest.mark.parametrize('loss', [intra_category, inter_category])
def test_two_dtypes(loss, dtypes):
    student, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    mixed = loss(student.to(dtypes[0]), teacher.to(dtypes[1]), labels)
    torch.testing.assert_close(mixed.double(), loss(student.double(), teacher.double(), labels), rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------------------
# The projection to one width.


def test_equal_channels_come_back_as_they_are():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    assert match_channels(student, teacher) == (student, teacher)


@pytest.mark.parametrize('rest', [(), (2, 3)])
def test_the_wider_side_is_projected(rest):
    narrow, wide = torch.randn(3, 4, *rest), torch.randn(3, 10, *rest)
    for student, teacher in ((narrow, wide), (wide, narrow)):
        results = match_channels(student, teacher)
        assert [x.shape for x in results] == [narrow.shape] * 2
        assert any(x is narrow for x in results)


def test_directions_are_orthonormal():
    identity = torch.eye(10, dtype=torch.float64)
    basis, _ = match_channels(identity, torch.empty(10, 4, dtype=torch.float64))
    torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-14)


def test_directions_do_not_depend_on_the_random_state():
    x, narrow = torch.randn(2, 9, dtype=torch.float64), torch.empty(2, 3, dtype=torch.float64)
    first, _ = match_channels(x, narrow)
    cskd._orthonormal_columns.cache_clear()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    second, _ = match_channels(x, narrow)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_position_of_a_map_is_projected_alike():
    wide, narrow = torch.randn(2, 6, 3, 3), torch.empty(2, 2, 3, 3)
    projected, _ = match_channels(wide, narrow)
    at_position, _ = match_channels(wide[:, :, 1, 2], narrow[:, :, 1, 2])
    torch.testing.assert_close(projected[:, :, 1, 2], at_position)


def test_gradient_reaches_a_wider_student():
    student = torch.randn(2, 6, requires_grad=True, dtype=torch.float64)
    teacher = torch.empty(2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: match_channels(x, teacher)[0], (student,))
