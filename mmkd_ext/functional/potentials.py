r"""Relations of n samples, from the Gram matrix of their batch.

Each is a function ``(gram_NN, tuples_MO) -> value_M`` for :func:`~mmkd_ext.functional.tuple_relation`, blind to
rotation, shift and scale of the features. The distance and the angle are those of RKD; simplex and analogy are ideas of
this project for relations of more than three samples.

Shape suffixes: N samples, M tuples, O samples of a tuple (the order), E = O - 1 edges from a tuple's first sample.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmkd_ext.functional.pairwise import EQUAL, SMALLEST_SQUARE

__all__ = ['Potential', 'analogy_potential', 'angle_potential', 'distance_potential', 'simplex_potential']

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


def _check_order(who: str, tuples: Tensor, *orders: int) -> None:
    if tuples.shape[1] not in orders:
        raise ValueError(
            f'{who}: expected tuples of order {" or ".join(map(str, orders))} but got {tuples.shape[1]}; '
            f'draw them with that order'
        )
