"""Correlation congruence for knowledge distillation (CCKD).

Shape suffixes: N samples, R rows of the relation (those whose relation to all samples is computed), D dims (all
dimensions of a sample, flattened).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_choice, check_pair, check_positive, full_precision, unit_rows
from mmkd_ext.ops.geometry import gram_rows, squared_distances
from mmkd_ext.ops.gram import GramSlope, loss_of_gram


@full_precision
def correlation_congruence(
    student: Tensor,
    teacher: Tensor,
    *,
    kernel: str = 'gaussian',
    gamma: float | str = 0.4,
    order: int | None = None,
    normalize: bool = True,
    rows: slice | None = None,
) -> Tensor:
    r"""How differently a kernel relates the samples of a batch in two networks.

    .. math:: \ell = \frac{1}{N^2} \sum_{ij} \big( k(s_i, s_j) - k(t_i, t_j) \big)^2

    over all pairs, the diagonal included, with one of the kernels

    - ``'gaussian'``: :math:`k(x, y) = e^{-\gamma \lVert x - y \rVert^2}`, or its Taylor polynomial of order :math:`P`,

      .. math:: k_P(x, y) = e^{-\gamma (\lVert x \rVert^2 + \lVert y \rVert^2)}
          \sum_{p=0}^{P} \frac{(2 \gamma\, x^\top y)^p}{p!};

    - ``'bilinear'``: :math:`k(x, y) = x^\top y`;
    - ``'mmd'``: :math:`k(x, y) = \lvert \bar x - \bar y \rvert`, bars are means over dims.

    All are blind to a rotation of the features except ``'mmd'``; with ``normalize`` they are blind to the length of
    every feature, and the Gaussian without it to a common shift.

    From "Correlation Congruence for Knowledge Distillation", Peng et al., ICCV 2019, arXiv 1904.01802; there is no
    official code. The paper prints the polynomial with the prefactor :math:`e^{-2 \gamma}`. **That is valid only for
    features of length 1**, where it equals the one above; on raw features it is not a kernel in (0, 1] but grows
    without bound. The polynomial is off by at most :math:`(2 \gamma)^{P+1} / (P+1)!` on features of length 1 (by at
    most 0.047 at the paper's :math:`\gamma = 0.4, P = 2`), and on others is near only while
    :math:`2 \gamma \lvert x^\top y \rvert \lesssim P`. The exact kernel costs the same and is the default.

    Args:
        student: Features :math:`s`, shape (N, ...).
        teacher: Features :math:`t` of the same samples, shape (N, ...); no gradient flows to them.
        kernel: ``'gaussian'``, ``'bilinear'`` or ``'mmd'``.
        gamma: :math:`\gamma = 1 / (2 \delta^2)` of the Gaussian; the paper's 0.4 is for features of length 1.
            ``'median'`` takes as :math:`\delta` the median distance between the teacher's features in this batch.
        order: :math:`P >= 1` of the Gaussian's polynomial, 2 in the paper; None for the exact kernel.
        normalize: Scale every feature to length 1 first, as the polynomial of the paper needs. False relates raw
            features, as the paper writes the other kernels; gradients then grow with the features, those of
            ``'bilinear'`` with their third power.
        rows: Rows of the kernel matrix that this process computes while the others compute the rest
            (:func:`~mmkd_ext.ops.distributed.own_rows`); the result is then its part, and parts add up to the loss.
            None for all.

    Returns:
        Loss, a scalar; a differentiable 0 for fewer than two samples.

    Raises:
        TypeError: If ``gamma`` is neither a number nor a word.
        ValueError: If a setting is unknown or out of range, the numbers of samples differ, or a value is NaN
            (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> correlation_congruence(x.flip(1), x) < 1e-6  # blind to rotation
        tensor(True)
    """
    caller = 'correlation_congruence'
    check_correlation_settings(caller, kernel, gamma, order)
    check_pair(caller, student, teacher)
    if len(student) < 2:
        return student[:0].sum()
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student_ND, teacher_ND = student.flatten(1).to(dtype), teacher.detach().flatten(1).to(dtype)
    if normalize:
        student_ND, teacher_ND = unit_rows(student_ND), unit_rows(teacher_ND)
    if kernel == 'mmd':
        gap_RN = _mean_differences(student_ND, rows) - _mean_differences(teacher_ND, rows)
        return gap_RN.square().sum() / len(student) ** 2
    with torch.no_grad():
        width = _median_gamma(teacher_ND) if isinstance(gamma, str) else gamma
        ours, theirs = (_kernel(x_ND, kernel, width, order, rows) for x_ND in (student_ND, teacher_ND))
    return _loss(caller, student_ND, ours, theirs, rows)


def check_correlation_settings(caller: str, kernel: str, gamma: float | str, order: int | None) -> None:
    """Refuse settings that :func:`correlation_congruence` cannot use; modules call it when they are built.

    Args:
        caller: Function or class that speaks in the error.
        kernel: ``'gaussian'``, ``'bilinear'`` or ``'mmd'``.
        gamma: Positive, or ``'median'``.
        order: None, or an integer >= 1 with ``'gaussian'``.

    Raises:
        TypeError: If ``gamma`` is neither a number nor a word.
        ValueError: If a setting is unknown or out of range.
    """
    check_choice(caller, ('gaussian', 'bilinear', 'mmd'), kernel=kernel)
    if isinstance(gamma, str):
        check_choice(caller, ('median',), gamma=gamma)
    else:
        check_positive(caller, gamma=gamma)
    if order is not None and not (kernel == 'gaussian' and isinstance(order, int) and order >= 1):
        raise ValueError(
            f'{caller}: expected order >= 1 with the gaussian kernel, or None, but got {order!r} with {kernel!r}; '
            f'only the Gaussian has a polynomial'
        )


class _Kernel(NamedTuple):
    """A kernel between samples and how it changes.

    Attributes:
        x_ND: Features as they were multiplied.
        value_RN: Its values.
        slope_RN: Their derivative in the inner products; a number where it is the same for all.
        gamma: Their derivative in either squared length is minus this times themselves; None where it is 0.
    """

    x_ND: Tensor
    value_RN: Tensor
    slope_RN: Tensor | float
    gamma: float | Tensor | None


def _kernel(x_ND: Tensor, kernel: str, gamma: float | Tensor, order: int | None, rows: slice | None) -> _Kernel:
    if kernel == 'gaussian' and order is None:
        # Distances do not see a shift; without it the products would drown differences.
        x_ND = x_ND - x_ND.mean(dim=0)
    rows = rows or slice(0, len(x_ND))
    product_RN, length_N = gram_rows(x_ND, rows)
    if kernel == 'bilinear':
        return _Kernel(x_ND, product_RN, 1.0, None)
    faded_N = gamma * length_N
    faded_R1 = faded_N[rows, None]
    product_RN.mul_(2 * gamma)
    if order is None:
        value_RN = product_RN.sub_(faded_R1).sub_(faded_N).clamp_(max=0).exp_()
        return _Kernel(x_ND, value_RN, 2 * gamma * value_RN, gamma)
    value_RN, below_RN = _series((faded_R1 + faded_N).neg_().exp_(), product_RN, order)
    return _Kernel(x_ND, value_RN, below_RN.mul_(2 * gamma), gamma)


def _series(term_RN: Tensor, product_RN: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """The exponential series times its first term, and the same one order lower."""
    # Every term is at most 1 in size, so summing terms cannot overflow, as Horner's scheme would for long features.
    total_RN = below_RN = term_RN.clone()
    for power in range(1, order + 1):
        below_RN = total_RN
        term_RN.mul_(product_RN).div_(power)
        total_RN = below_RN + term_RN
    return total_RN, below_RN


def _loss(caller: str, student_ND: Tensor, student: _Kernel, teacher: _Kernel, rows: slice | None) -> Tensor:
    num_samples = len(student_ND)
    with torch.no_grad():
        gap_RN = teacher.value_RN.neg_().add_(student.value_RN)
        # Row by row: one sum over a million squares would lose digits.
        loss = torch.linalg.vector_norm(gap_RN, dim=1).square().sum() / num_samples**2
        if not student_ND.requires_grad:
            return loss
        gap_RN.mul_(2 / num_samples**2)
        slope_RN = student.slope_RN * gap_RN
        length_slope_N = None
        if student.gamma is not None:
            fall_RN = gap_RN.mul_(student.value_RN)
            length_slope_N = fall_RN.sum(dim=0)
            length_slope_N[rows or slice(None)] += fall_RN.sum(dim=1)
            length_slope_N *= -student.gamma
    return loss_of_gram(
        caller, student_ND, loss, GramSlope(student.x_ND, slope_RN, length_slope_N, rows, is_symmetric=True)
    )


def _mean_differences(x_ND: Tensor, rows: slice | None) -> Tensor:
    mean_N = (x_ND - x_ND.detach().mean(dim=0)).mean(dim=1)
    return (mean_N[rows or slice(None), None] - mean_N).abs()


def _median_gamma(teacher_ND: Tensor) -> Tensor:
    """1 / (2 median^2) over pairs of samples; 1 where half of the pairs coincide and there is no scale."""
    num_samples = len(teacher_ND)
    first, second = torch.triu_indices(num_samples, num_samples, offset=1, device=teacher_ND.device)
    median = squared_distances(teacher_ND)[first, second].median()
    return torch.where(median > torch.finfo(median.dtype).eps, 0.5 / median, 1.0)
