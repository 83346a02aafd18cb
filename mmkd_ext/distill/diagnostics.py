"""What is worth watching about a term while the student learns.

Shape suffixes: N samples, C classes or channels, D dims.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd_ext.distill.term import Term
from mmkd_ext.functional.maps import pool_map
from mmkd_ext.functional.similarity import collapse, linear_cka

__all__ = ['diagnose', 'loss_share']


def diagnose(term: Term, student: Tensor, teacher: Tensor, num_samples: int) -> dict[str, Tensor]:
    """Compare the tapped tensors of a batch.

    Maps (N, C, H, W) are averaged over their positions first. Where the first axis does not count samples in both
    networks, as in stacked views (V, H, B, C), only ``agree_<term>`` is given.

    Args:
        term: With ``agreement``, both tensors are logits (N, C, ...) of the same classes.
        student: Tapped tensor of the student.
        teacher: Tapped tensor of the teacher.
        num_samples: Number of samples in the batch.

    Returns:
        Scalars without gradient. ``cka_<term>``: debiased linear CKA of student and teacher
        (:func:`~mmkd_ext.functional.similarity.linear_cka`), for at least four samples. ``collapse_<term>``: of the
        student (:func:`~mmkd_ext.functional.similarity.collapse`). ``agree_<term>``: share of samples or positions
        where both prefer the same class, with ``agreement``.

    Raises:
        ValueError: The term has ``agreement`` but the shapes differ.
    """
    statistics = {}
    if term.agreement:
        if student.shape != teacher.shape or student.ndim < 2:
            raise ValueError(
                f'term {term.name!r}: expected logits (N, C, ...) of the same classes for agreement=True but got '
                f'{tuple(student.shape)} of the student and {tuple(teacher.shape)} of the teacher; drop agreement'
            )
        statistics[f'agree_{term.name}'] = (student.argmax(1) == teacher.argmax(1)).float().mean()
    rows = min(student.ndim, teacher.ndim) > 1 and len(student) == len(teacher) >= max(num_samples, 2)
    if rows:
        student_ND, teacher_ND = _one_row_each(student.detach()), _one_row_each(teacher)
        statistics[f'collapse_{term.name}'] = collapse(student_ND)
        if len(student) >= 4:
            statistics[f'cka_{term.name}'] = linear_cka(student_ND, teacher_ND, debiased=True)
    return statistics


def loss_share(loss: Tensor, losses: Mapping[str, Tensor | Sequence[Tensor]]) -> Tensor:
    """Return the share of one loss in the sum of all, as mmengine forms it; 0 where the sum is 0.

    Args:
        loss: Scalar.
        losses: Tensors and lists of tensors; those with "loss" in their name count.
    """
    total = torch.stack([_mean(value) for name, value in losses.items() if 'loss' in name]).sum()
    return torch.where(total == 0, 0.0, loss.detach() / total)


def _mean(value: Tensor | Sequence[Any]) -> Tensor:
    values = [value] if isinstance(value, Tensor) else value
    return torch.stack([item.detach().float().mean() for item in values]).sum()


def _one_row_each(x: Tensor) -> Tensor:
    return pool_map(x) if x.ndim == 4 else x
