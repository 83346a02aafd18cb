"""Category structure knowledge distillation (CSKD): how samples lie around centres of categories, and how these lie.

Vectors are compared, so networks with features of different width are first brought to one without anything to train
(:func:`match_channels`).

Shape suffixes: N samples, D dims (all dimensions of a sample, flattened), K categories in the batch; of a projection,
W wide and K narrow channels.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_choice, check_pair, full_precision, unit_rows


def match_channels(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    r"""Project the network with more channels onto as many random directions as the other has channels.

    The directions are orthonormal, drawn once from a fixed seed: the same in every step, process and run. A random
    projection keeps inner products and distances up to a common factor, in expectation. Values per channel keep their
    size. This takes the place of the adapters that papers train on the student, because a distillation term of this
    package has no weights of its own.

    Args:
        student: Features, shape (N, C, ...).
        teacher: Features, shape (N, C', ...).

    Returns:
        Both with min(C, C') channels; as they came if these are equal.
    """
    wide, narrow = max(student.shape[1], teacher.shape[1]), min(student.shape[1], teacher.shape[1])
    if wide == narrow:
        return student, teacher
    basis_WK = _orthonormal_columns(wide, narrow, student.dtype, student.device)
    if student.shape[1] == wide:
        return _project(student, basis_WK), teacher
    return student, _project(teacher, basis_WK)


def _project(x: Tensor, basis_WK: Tensor) -> Tensor:
    return (x.movedim(1, -1) @ basis_WK).movedim(-1, 1)


@functools.lru_cache(maxsize=16)
def _orthonormal_columns(wide: int, narrow: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    basis_WK, triangle_KK = torch.linalg.qr(torch.randn(wide, narrow, generator=generator, dtype=torch.float64))
    # The factorisation leaves signs open; fixed, they are the same with every linear algebra library.
    return (basis_WK * triangle_KK.diagonal().sign()).to(device, dtype)


# --------------------------------------------------------------------------------------------------
# The losses.


@full_precision
def intra_category(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    student_correct: Tensor | None = None,
    teacher_correct: Tensor | None = None,
    detach_centre: bool = False,
    reduction: str = 'sample',
) -> Tensor:
    r"""How differently samples lie around the centre of their category in two networks.

    .. math:: \ell = \frac{1}{N} \sum_i \big\lVert (t_i - c^t_{y_i}) - (s_i - c^s_{y_i}) \big\rVert^2

    with :math:`c_y` the mean feature of category :math:`y` in the batch. Blind to where the centres are, and to
    categories with one sample in the batch; not to a rotation or a scale, because vectors are compared.

    From "Improving Knowledge Distillation via Category Structure", Chen et al., ECCV 2020; what could be read of it
    does not state the normalisation, a mean over samples is our reading. The official code
    (xeanzheng/CSKD) uses ``detach_centre=True, reduction='official'`` and, on features but not on logits, centres of
    correctly classified samples. Detaching matters with such centres only: otherwise the deviations from a centre
    cancel, and so does the gradient through it.

    Features of different width are compared after :func:`match_channels`, where the
    official code trains a 1x1 convolution on the student.

    Args:
        student: Features or logits :math:`s`, shape (N, C, ...).
        teacher: The same of the teacher, :math:`t`, shape (N, C', ...); no gradient flows to them.
        labels: Integer categories :math:`y`, shape (N,); samples with a negative label take no part.
        student_correct: Samples that count for the student's centres, shape (N,), bool: those that it classifies
            correctly. A category without any has no centre, and its samples no deviation. None for all samples.
        teacher_correct: The same for the teacher's centres.
        detach_centre: Take the student's centres as constants.
        reduction: ``'sample'`` as above, ``'element'`` divides by D as well, ``'official'`` by :math:`D^2`.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        ValueError: If shapes do not fit, ``reduction`` is unknown, or a value is NaN (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> intra_category(x + 1, x, torch.tensor([0, 1, 1])) < 1e-6  # blind to shift
        tensor(True)
    """
    caller = 'intra_category'
    check_choice(caller, ('sample', 'element', 'official'), reduction=reduction)
    check_pair(caller, student, teacher)
    _check_labels(caller, labels, len(student))
    if student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f'{caller}: expected maps of one size but got student {tuple(student.shape)}, teacher '
            f'{tuple(teacher.shape)}; pool both to one size'
        )
    if len(student) < 2:
        return student[:0].sum()
    student_ND, teacher_ND = (x.flatten(1) for x in match_channels(student, teacher.detach()))
    categories = _categories(labels)
    if student_correct is None and teacher_correct is None:
        # Deviations from means are linear: one centre, that of the differences, and no gradient passes through it.
        gap_ND = _deviations(_shifted(teacher_ND) - _shifted(student_ND), categories, detach_centre=True)
    else:
        gap_ND = _deviations(teacher_ND, categories, teacher_correct) - _deviations(
            student_ND, categories, student_correct, detach_centre
        )
    num_dims = gap_ND.shape[1]
    divisor = {'sample': 1, 'element': num_dims, 'official': num_dims**2}[reduction]
    return gap_ND.square().sum() / (divisor * (labels >= 0).sum().clamp(min=1))


@full_precision
def inter_category(student: Tensor, teacher: Tensor, labels: Tensor, *, reduction: str = 'mean') -> Tensor:
    r"""How differently the centres of categories are turned towards each other in two networks.

    .. math:: \ell = \frac{1}{K^2} \sum_{ab} \big( \cos(c^t_a, c^t_b) - \cos(c^s_a, c^s_b) \big)^2

    over the :math:`K` categories of the batch, :math:`c` their mean features. Blind to rotation, to the lengths of
    centres, and to everything inside a category; widths may differ. A centre at zero has no direction, its cosines
    are 0.

    From "Improving Knowledge Distillation via Category Structure", Chen et al., ECCV 2020. The official code divides by
    :math:`K^3` and returns NaN for a centre at zero.

    How many categories there are, the host would have to wait for on a GPU. There the sum runs over pairs of samples,
    each weighted by one over the sizes of its two categories.

    Args:
        student: Features or logits, shape (N, ...).
        teacher: The same of the teacher, shape (N, ...); no gradient flows to them.
        labels: Integer categories, shape (N,); samples with a negative label take no part.
        reduction: ``'mean'`` as above, ``'official'`` divides by :math:`K` once more.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        ValueError: If shapes do not fit, ``reduction`` is unknown, or a value is NaN (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> inter_category(2 * x, x, torch.tensor([0, 1, 1])) < 1e-6  # blind to scale
        tensor(True)
    """
    caller = 'inter_category'
    check_choice(caller, ('mean', 'official'), reduction=reduction)
    check_pair(caller, student, teacher)
    _check_labels(caller, labels, len(student))
    if len(student) < 2:
        return student[:0].sum()
    member_KN, _, weight_K = _categories(labels)
    student_KK, teacher_KK = (_cosines(_means(x.flatten(1), member_KN)) for x in (student, teacher.detach()))
    gap_KK = student_KK - teacher_KK
    weight_K = weight_K.to(gap_KK.dtype)
    num_categories = weight_K.sum().clamp(min=1)
    total = ((gap_KK.square() * weight_K).sum(dim=1) * weight_K).sum()
    return total / num_categories ** (3 if reduction == 'official' else 2)


@full_precision
def centre_regulariser(student: Tensor, labels: Tensor) -> Tensor:
    r"""How far the student's samples lie from the centre of their category, whatever the teacher says.

    .. math:: \ell = \frac{1}{N D} \sum_i \lVert s_i - c^s_{y_i} \rVert^2

    The official code of CSKD adds this to its loss with a weight (0.1) that far outweighs the terms which transfer
    anything, and the paper's description does not name it. It is a function of its own, so that nobody uses it by
    accident. Whether the centre is a constant makes no difference: deviations from a mean cancel.

    Args:
        student: Logits, shape (N, ...).
        labels: Integer categories, shape (N,); samples with a negative label take no part.

    Returns:
        Loss, a scalar.

    Raises:
        ValueError: If shapes do not fit or a value is NaN (:func:`check_pair`).

    Example:
        >>> centre_regulariser(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))  # (1 + 1 + 0) / 3
        tensor(0.6667)
    """
    caller = 'centre_regulariser'
    check_pair(caller, student, student)
    _check_labels(caller, labels, len(student))
    deviation_ND = _deviations(student.flatten(1), _categories(labels), detach_centre=True)
    return deviation_ND.square().sum() / ((labels >= 0).sum().clamp(min=1) * deviation_ND.shape[1])


def _check_labels(caller: str, labels: Tensor, num_samples: int) -> None:
    if labels.shape != (num_samples,) or labels.is_floating_point():
        raise ValueError(
            f'{caller}: expected integer labels of shape ({num_samples},) but got {labels.dtype} of shape '
            f'{tuple(labels.shape)}; pass one category a sample'
        )


class _Categories(NamedTuple):
    """Who belongs to which category; where their number is unknown, each sample has a row of its own.

    Attributes:
        member_KN: Which samples are in it; none of those without a label.
        index_N: Row of each sample.
        weight_K: One over the rows of the same category; 0 of samples without a label.
    """

    member_KN: Tensor
    index_N: Tensor
    weight_K: Tensor


def _categories(labels_N: Tensor) -> _Categories:
    if labels_N.device.type == 'cpu' and not torch.compiler.is_compiling():
        label_K, index_N = labels_N.unique(return_inverse=True)
    else:
        label_K, index_N = labels_N, torch.arange(len(labels_N), device=labels_N.device)
    member_KN = (label_K[:, None] == labels_N) & (labels_N >= 0)
    num_rows_K = (label_K[:, None] == label_K).sum(dim=1)
    return _Categories(member_KN, index_N, (label_K >= 0) / num_rows_K)


def _deviations(
    x_ND: Tensor, categories: _Categories, counts_N: Tensor | None = None, detach_centre: bool = False
) -> Tensor:
    """Samples minus the mean of those of their category that count; 0 where none does."""
    x_ND = _shifted(x_ND)
    member_KN = categories.member_KN if counts_N is None else categories.member_KN & counts_N
    mean_KD = _means(x_ND.detach() if detach_centre else x_ND, member_KN)
    has_centre_N1 = member_KN.any(dim=1)[categories.index_N, None]
    return torch.where(has_centre_N1, x_ND - mean_KD[categories.index_N], 0.0)


def _shifted(x_ND: Tensor) -> Tensor:
    """Without the batch's common offset, which would drown the differences."""
    return x_ND - x_ND.detach().mean(dim=0)


def _means(x_ND: Tensor, member_KN: Tensor) -> Tensor:
    """Mean of the samples that are marked in each row; 0 where none is."""
    return (member_KN.to(x_ND.dtype) @ x_ND) / member_KN.sum(dim=1, keepdim=True).clamp(min=1)


def _cosines(x_ND: Tensor) -> Tensor:
    unit_ND = unit_rows(x_ND)
    return unit_ND @ unit_ND.T
