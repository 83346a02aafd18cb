"""The contrastive objective of generalised category discovery (GCD).

Shape suffixes: V views, B batch rows, D dims, R = V * B rows of all views, view by view.
"""

import torch
from torch import Tensor

from mmkd_ext.ops.arguments import check_dims, check_positive, full_precision, unit_rows


@full_precision
def info_nce(embedding: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Each view of an image is to be told from all other images by its other views.

    .. math:: \ell = \frac{1}{V B} \sum_i \frac{1}{V - 1} \sum_{p \in P(i)}
        -\log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{n \ne i} \exp(z_i \cdot z_n / \tau)}

    over the rows of all views, :math:`z` made unit, :math:`P(i)` the other views of the image of row i.

    From "Generalized Category Discovery", Vaze et al., CVPR 2022, arXiv 2201.02609, Eq. 1, which has two views; the
    official code has :math:`\tau = 1`.

    Args:
        embedding: Embeddings of all views, of any length, shape (V, B, D).
        temperature: :math:`\tau`.

    Returns:
        Loss, a scalar >= 0; 0 for one image, which has no others, and a differentiable 0 for none.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If ``embedding`` has another number of dimensions or fewer than two views, or ``temperature`` is out
            of range.

    Example:
        >>> views = torch.eye(2).expand(2, 2, 2)  # two images, two views, orthogonal: log(1 + 2 / e)
        >>> info_nce(views)
        tensor(0.5514)
    """
    images_B = torch.arange(_check('info_nce', embedding, temperature), device=embedding.device)
    return _contrast(embedding, images_B, temperature)


@full_precision
def supervised_contrastive(embedding: Tensor, labels: Tensor, *, temperature: float = 0.07) -> Tensor:
    r"""Labelled images of one class attract each other, among the labelled ones.

    .. math:: \ell = \frac{1}{|L|} \sum_{i \in L} \frac{1}{|P(i)|} \sum_{p \in P(i)}
        -\log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{n \in L, n \ne i} \exp(z_i \cdot z_n / \tau)}

    :math:`L` are the rows of labelled images in all views, :math:`P(i)` those of the same class other than i.

    From "Generalized Category Discovery", Vaze et al., CVPR 2022, arXiv 2201.02609, Eq. 2, after "Supervised
    Contrastive Learning", Khosla et al., NeurIPS 2020. The denominator runs over labelled rows as in the official code.

    Args:
        embedding: Embeddings of all views, of any length, shape (V, B, D).
        labels: Classes, shape (B,), int64; negative for unlabelled images, which take no part.
        temperature: :math:`\tau`.

    Returns:
        Loss, a scalar >= 0; a differentiable 0 if no image is labelled. Nothing waits for the device.

    Raises:
        TypeError: If ``temperature`` is not a number.
        ValueError: If shapes do not fit, there are fewer than two views, or ``temperature`` is out of range.

    Example:
        >>> views = torch.eye(2).expand(2, 2, 2)  # two images, two views, orthogonal: log(1 + 2 / e)
        >>> supervised_contrastive(views, torch.tensor([0, 1]), temperature=1.0)
        tensor(0.5514)
    """
    batch_size = _check('supervised_contrastive', embedding, temperature)
    if labels.shape != (batch_size,):
        raise ValueError(
            f'supervised_contrastive: expected labels of shape ({batch_size},) but got {tuple(labels.shape)}; '
            'pass one label per image, not per view'
        )
    return _contrast(embedding, labels, temperature)


def _contrast(embedding_VBD: Tensor, group_B: Tensor, temperature: float) -> Tensor:
    """Mean of -log p over pairs of one group, by anchor; rows of a negative group are left out everywhere."""
    unit_RD = unit_rows(embedding_VBD.flatten(0, 1))
    group_R = group_B.repeat(len(embedding_VBD))
    is_member_R = group_R >= 0
    is_self_RR = torch.eye(len(group_R), dtype=torch.bool, device=group_R.device)
    is_positive_RR = (group_R[:, None] == group_R) & is_member_R & ~is_self_RR
    # Finite rather than -inf: a row without any other member stays a number, which its empty mask then removes.
    lowest = torch.finfo(unit_RD.dtype).min
    score_RR = (unit_RD @ unit_RD.T / temperature).masked_fill(is_self_RR | ~is_member_R, lowest)
    nll_R = -(score_RR.log_softmax(dim=1) * is_positive_RR).sum(dim=1) / is_positive_RR.sum(dim=1).clamp(min=1)
    return nll_R.sum() / is_member_R.sum().clamp(min=1)


def _check(caller: str, embedding: Tensor, temperature: float) -> int:
    check_positive(caller, temperature=temperature)
    check_dims(caller, 'V B D', embedding=embedding)
    num_views, batch_size, _ = embedding.shape
    if num_views < 2:
        raise ValueError(f'{caller}: expected at least 2 views but got {num_views}; check the multi-view transform')
    return batch_size
