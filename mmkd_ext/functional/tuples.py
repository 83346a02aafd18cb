r"""Relations of n samples at a time, on tuples drawn at random: the general form of RKD.

RKD takes all pairs and all triplets of a batch. The number of n-tuples grows as :math:`N^n`; a few thousand of them,
drawn without bias, estimate the mean over all at a price that depends on their number and hardly on n.

The relation is a potential: any function ``(gram_NN, tuples_MO) -> value_M`` of the Gram matrix of the centred batch,
hence blind to rotation and shift. Of the four here, which are also blind to scale, distance and angle are those of RKD;
simplex and analogy are ideas of this project for relations of more than three samples.

Shape suffixes: N samples, D dims (all dimensions of a sample, flattened), M tuples, O samples of a tuple (the order),
E = O - 1 edges from a tuple's first sample.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_pair, check_positive, full_precision
from mmkd_ext.ops.geometry import EQUAL, SMALLEST_SQUARE
from mmkd_ext.ops.random import mix_bits

Potential = Callable[[Tensor, Tensor], Tensor]


def distance_potential(gram: Tensor, tuples: Tensor) -> Tensor:
    """Distance of two samples over the mean distance of all pairs in the batch: RKD's, order 2.

    Args:
        gram: Gram matrix of the centred batch, float64, shape (N, N).
        tuples: Indices, shape (M, 2).

    Returns:
        Values >= 0, shape (M,).

    Raises:
        ValueError: If the tuples have another order.

    Example:
        >>> x = torch.tensor([[-3.0], [0.0], [3.0]], dtype=torch.float64)  # distances 3, 3 and 6
        >>> distance_potential(x @ x.T, torch.tensor([[0, 1], [0, 2]]))
        tensor([0.7500, 1.5000], dtype=torch.float64)
    """
    _check_order('distance_potential', tuples, 2)
    num_samples = len(gram)
    all_N = torch.arange(num_samples, device=gram.device)
    mean = _length(gram, all_N[:, None], all_N)[0].sum() / (num_samples * (num_samples - 1))
    length_M, _ = _length(gram, *tuples.T)
    return length_M / torch.where(mean > 0, mean, 1)


def angle_potential(gram: Tensor, tuples: Tensor) -> Tensor:
    """Cosine of the angle at the middle one of three samples: RKD's, order 3.

    Args:
        gram: Gram matrix of the centred batch, float64, shape (N, N).
        tuples: Indices, shape (M, 3).

    Returns:
        Values in [-1, 1], shape (M,); 0 where an arm has no length.

    Raises:
        ValueError: If the tuples have another order.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> angle_potential(x @ x.T, torch.tensor([[0, 1, 2]]))  # a right angle
        tensor([0.], dtype=torch.float64)
    """
    _check_order('angle_potential', tuples, 3)
    i, j, k = tuples.T
    return _edge_cosine(gram, j, i, j, k)


def analogy_potential(gram: Tensor, tuples: Tensor) -> Tensor:
    r"""Whether i is to j as k is to l: the cosine :math:`\langle e_{ij}, e_{kl} \rangle` of two edges, order 4.

    Args:
        gram: Gram matrix of the centred batch, float64, shape (N, N).
        tuples: Indices, shape (M, 4).

    Returns:
        Values in [-1, 1], shape (M,); 0 where an edge has no length.

    Raises:
        ValueError: If the tuples have another order.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
        >>> analogy_potential(x @ x.T, torch.tensor([[0, 1, 2, 3]]))  # parallel
        tensor([1.], dtype=torch.float64)
    """
    _check_order('analogy_potential', tuples, 4)
    return _edge_cosine(gram, *tuples.T)


def simplex_potential(gram: Tensor, tuples: Tensor) -> Tensor:
    r"""How far a sample and O - 1 others span a simplex: :math:`\det(E E^\top)`, order 3 to 6.

    Rows of :math:`E` are the unit edges from the first sample to the others. 1 if the edges are orthogonal, 0 if the
    samples lie in a space of fewer dimensions; order 3 is :math:`1 - \cos^2` of the angle at the first sample.

    Args:
        gram: Gram matrix of the centred batch, float64, shape (N, N).
        tuples: Indices, shape (M, O).

    Returns:
        Values in [0, 1], shape (M,).

    Raises:
        ValueError: If the tuples have another order.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> simplex_potential(x @ x.T, torch.tensor([[0, 1, 2]]))  # orthogonal edges
        tensor([1.], dtype=torch.float64)
    """
    _check_order('simplex_potential', tuples, 3, 4, 5, 6)
    anchor_M1, others_ME = tuples[:, :1], tuples[:, 1:]
    cosine_MEE = _edge_cosine(gram, anchor_M1[:, None], others_ME[:, :, None], anchor_M1[:, None], others_ME[:, None])
    return _determinant(cosine_MEE)


def _edge_cosine(gram: Tensor, i: Tensor, j: Tensor, k: Tensor, m: Tensor) -> Tensor:
    """Cosine between the edges from i to j and from k to m."""
    product = gram[j, m] - gram[j, k] - gram[i, m] + gram[i, k]
    return product * _length(gram, i, j)[1] * _length(gram, k, m)[1]


def _length(gram: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """Length of the edge from i to j and its inverse; both 0, without gradient, where the samples coincide."""
    size = gram[i, i] + gram[j, j]
    square = size - 2 * gram[i, j]
    has_length = square > (EQUAL * size).clamp(min=SMALLEST_SQUARE)
    length = torch.where(has_length, square, 1).sqrt()
    return torch.where(has_length, length, 0), torch.where(has_length, 1 / length, 0)


def _determinant(matrix: Tensor) -> Tensor:
    """By expansion along the first row: a polynomial, so its gradient is exact for singular matrices too."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0, 0]
    total = torch.zeros_like(matrix[..., 0, 0])
    for column in range(matrix.shape[-1]):
        minor = torch.cat((matrix[..., 1:, :column], matrix[..., 1:, column + 1 :]), dim=-1)
        total = total + (-1) ** column * matrix[..., 0, column] * _determinant(minor)
    return total


def _check_order(caller: str, tuples: Tensor, *orders: int) -> None:
    if tuples.shape[1] not in orders:
        raise ValueError(
            f'{caller}: expected tuples of order {" or ".join(map(str, orders))} but got {tuples.shape[1]}; '
            f'draw them with that order'
        )


# --------------------------------------------------------------------------------------------------
# Tuples, and the loss on them.


def sample_tuples(num_samples: int, order: int, num_tuples: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw tuples of distinct samples, each ordered tuple with equal probability, without rejection.

    The m-th index is drawn among the N - m that are left and moved past those taken. Tuples may repeat.

    Args:
        num_samples: N, at least ``order``.
        order: O, at least 1.
        num_tuples: M.
        generator: A CPU generator; equal seeds give equal tuples on all processes. None for torch's own.

    Returns:
        Indices, int64 on the CPU, shape (M, O).

    Raises:
        ValueError: If there are fewer samples than a tuple has, or a number is out of range.

    Example:
        >>> sample_tuples(5, order=3, num_tuples=4).shape
        torch.Size([4, 3])
    """
    if not 1 <= order <= num_samples or num_tuples < 0:
        raise ValueError(
            f'sample_tuples: expected 1 <= order <= num_samples and num_tuples >= 0 but got order={order}, '
            f'num_samples={num_samples}, num_tuples={num_tuples}; use larger batches or smaller tuples'
        )
    columns: list[Tensor] = []
    for position in range(order):
        index_M = torch.randint(num_samples - position, (num_tuples,), generator=generator)
        for taken_M in torch.stack(columns).sort(dim=0).values if columns else ():
            index_M = index_M + (index_M >= taken_M)
        columns.append(index_M)
    return torch.stack(columns, dim=1)


def keep_tuples(ids: Tensor, tuples: Tensor, *, fraction: float, epoch: int) -> Tensor:
    """Decide for a whole epoch which tuples take part, by a hash of their samples' ids and the epoch.

    The same set of samples meets the same decision on every process, at any place of any batch, in any order within the
    tuple, and after a resume. With ``torch.combinations(torch.arange(N), 2)`` for ``tuples`` it is a mask of all pairs.

    Args:
        ids: Ids of the samples in the data set, integers, shape (N,).
        tuples: Indices into the batch, integers, shape (M, O).
        fraction: Share of the tuples that is kept, on average, in [0, 1].
        epoch: Another epoch keeps other tuples.

    Returns:
        Booleans, shape (M,).

    Raises:
        ValueError: If ``fraction`` is not in [0, 1].

    Example:
        >>> pairs = torch.combinations(torch.arange(3), 2)
        >>> keep_tuples(torch.tensor([7, 8, 9]), pairs, fraction=1.0, epoch=0)
        tensor([True, True, True])
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f'keep_tuples: expected fraction in [0, 1] but got {fraction}; it is a share of the tuples')
    hash_M = mix_bits(torch.full((len(tuples),), epoch, dtype=torch.int64, device=ids.device))
    for ids_M in ids[tuples].sort(dim=1).values.unbind(dim=1):
        hash_M = mix_bits(hash_M ^ ids_M)
    uniform_M = ((hash_M >> 11) & (2**53 - 1)).double() / 2**53
    return uniform_M < fraction


@full_precision
def tuple_relation(
    student: Tensor,
    teacher: Tensor,
    tuples: Tensor,
    *,
    potential: Potential,
    keep: Tensor | None = None,
    delta: float = 1.0,
) -> Tensor:
    r"""How differently two networks see a relation of n samples, on given tuples.

    .. math:: \ell = \frac{1}{|\mathcal{T}|} \sum_{\tau \in \mathcal{T}}
        l_\delta\big(\psi(s_{\tau_1}, \dots, s_{\tau_n}) - \psi(t_{\tau_1}, \dots, t_{\tau_n})\big)

    with the Huber loss :math:`l_\delta`. On tuples drawn by :func:`sample_tuples` it is an unbiased estimate of the
    mean over all tuples of distinct samples: for the distance and angle potentials, of ``reduction='distinct'``. The
    Gram matrix is float64, so that offsets and near-duplicates do no harm.

    The general form of "Relational Knowledge Distillation", Park et al., CVPR 2019, arXiv 1904.05068, Section 3.1.

    Args:
        student: Features of any shape (N, ...).
        teacher: Features of the same samples, any shape (N, ...); no gradient flows to them.
        tuples: Indices of distinct samples, int64, shape (M, O).
        potential: :math:`\psi`, such as :func:`simplex_potential`.
        keep: Tuples to take, booleans, shape (M,); None for all.
        delta: :math:`\delta` where Huber's loss turns from square to linear.

    Returns:
        Loss, a scalar; a differentiable 0 where there are no tuples.

    Raises:
        TypeError: If ``delta`` is not a number.
        ValueError: If the numbers of samples differ, ``tuples`` is not a matrix or of another order than the potential,
            ``delta`` is not positive, or a value is NaN (:func:`check_pair`).

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
        >>> tuple_relation(2 * x, x, torch.combinations(torch.arange(3), 2), potential=distance_potential) < 1e-6
        tensor(True)
    """
    caller = 'tuple_relation'
    check_positive(caller, delta=delta)
    check_pair(caller, student, teacher)
    if tuples.ndim != 2:
        raise ValueError(f'{caller}: expected tuples of shape (M, O) but got {tuple(tuples.shape)}; use sample_tuples')
    if tuples.numel() == 0:
        return student[:0].sum()
    tuples = tuples.to(student.device)
    gap_M = potential(_gram(student), tuples) - potential(_gram(teacher.detach()), tuples)
    huber_M = torch.nn.functional.huber_loss(gap_M, torch.zeros_like(gap_M), reduction='none', delta=delta)
    keep_M = torch.ones_like(huber_M) if keep is None else keep.to(huber_M)
    return ((huber_M * keep_M).sum() / keep_M.sum().clamp(min=1)).to(student.dtype)


def _gram(x: Tensor) -> Tensor:
    x_ND = x.flatten(1).double()
    x_ND = x_ND - x_ND.mean(dim=0)
    return x_ND @ x_ND.T
