r"""Relations of n samples at a time, on tuples drawn at random.

RKD takes all pairs and all triplets of a batch. The number of n-tuples grows as :math:`N^n`; a few thousand of them,
drawn without bias, estimate the mean over all at a price that depends on their number and hardly on n. The relation is
any function ``(gram_NN, tuples_MO) -> value_M`` of the Gram matrix of the centred batch; :mod:`potentials` has four.

Shape suffixes: N samples, D dims, M tuples, O samples of a tuple (the order).
"""

import torch
from torch import Tensor

from mmkd_ext.functional.checks import check_pair, check_positive
from mmkd_ext.functional.hashing import mix_bits
from mmkd_ext.functional.potentials import Potential
from mmkd_ext.functional.sharing import full_precision

__all__ = ['keep_tuples', 'sample_tuples', 'tuple_relation']


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
    """
    who = 'tuple_relation'
    check_positive(who, delta=delta)
    check_pair(who, student, teacher)
    if tuples.ndim != 2:
        raise ValueError(f'{who}: expected tuples of shape (M, O) but got {tuple(tuples.shape)}; use sample_tuples')
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
