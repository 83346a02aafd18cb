"""What is said of the terms of a distillation: once at the start, and while the student learns.

Shape suffixes: N samples, C classes or channels, D dims.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd_ext.distill.term import Term
from mmkd_ext.io import table
from mmkd_ext.ops.maps import MapLayout, pool_map
from mmkd_ext.scores.similarity import collapse, linear_cka


def diagnose(
    term: Term, student_features: Mapping[str, Tensor], teacher_features: Mapping[str, Tensor], num_samples: int
) -> dict[str, Tensor]:
    """Compare the tapped tensors of a batch.

    Maps (N, C, H, W) are averaged over their positions first. Where the first axis does not count samples in both
    networks, as in stacked views (V, H, B, C), only ``agree_<term>`` is given. Of a term with several pairs of taps,
    each pair that takes part has numbers of its own, ``cka_<term>_0`` and so on.

    Args:
        term: With ``agreement``, both tensors are logits (N, C, ...) of the same classes.
        student_features: Tensors of the student by tap.
        teacher_features: Tensors of the teacher by tap.
        num_samples: Number of samples in the batch.

    Returns:
        Scalars without gradient. ``cka_<term>``: debiased linear CKA of student and teacher
        (:func:`~mmkd_ext.scores.similarity.linear_cka`), for at least four samples. ``collapse_<term>``: of the
        student (:func:`~mmkd_ext.scores.similarity.collapse`). ``agree_<term>``: share of samples or positions
        where both prefer the same class, with ``agreement``. ``weight_<term>_<pair>``: of several pairs, the share of
        each in the term.

    Raises:
        ValueError: The term has ``agreement`` but the shapes differ.
    """
    statistics: dict[str, Tensor] = {}
    names = pair_names(term.name, len(term.pairs))
    for place in term.active(student_features, teacher_features):
        tap_S, tap_T = term.pairs[place]
        student, teacher = student_features[tap_S], teacher_features[tap_T]
        layouts = term.layout_of(0, tap_S), term.layout_of(1, tap_T)
        statistics |= _compare(names[place], student, teacher, layouts, num_samples, term.agreement)
    if len(names) > 1:
        weights = torch.as_tensor(term.layer_choice.weights())
        statistics |= {f'weight_{name}': weight for name, weight in zip(names, weights, strict=True)}
    return statistics


def pair_names(name: str, num_pairs: int) -> list[str]:
    """Name the pairs of taps of a term: like the term where there is one, else numbered from 0.

    Args:
        name: Name of the term.
        num_pairs: Number of its pairs.
    """
    return [name] if num_pairs == 1 else [f'{name}_{place}' for place in range(num_pairs)]


def loss_share(loss: Tensor, losses: Mapping[str, Tensor | Sequence[Tensor]]) -> Tensor:
    """Return the share of one loss in the sum of all, as mmengine forms it; 0 where the sum is 0.

    Args:
        loss: Scalar.
        losses: Tensors and lists of tensors; those with "loss" in their name count.
    """
    total = torch.stack([_mean(value) for name, value in losses.items() if 'loss' in name]).sum()
    return torch.where(total == 0, 0.0, loss.detach() / total)


def _compare(
    name: str,
    student: Tensor,
    teacher: Tensor,
    layouts: tuple[MapLayout | None, MapLayout | None],
    num_samples: int,
    agreement: bool,
) -> dict[str, Tensor]:
    """Return the numbers of one pair of tensors."""
    statistics = {}
    if agreement:
        if student.shape != teacher.shape or student.ndim < 2:
            raise ValueError(
                f'term {name!r}: expected logits (N, C, ...) of the same classes for agreement=True but got '
                f'{tuple(student.shape)} of the student and {tuple(teacher.shape)} of the teacher; drop agreement'
            )
        statistics[f'agree_{name}'] = (student.argmax(1) == teacher.argmax(1)).float().mean()
    rows = min(student.ndim, teacher.ndim) > 1 and len(student) == len(teacher) >= max(num_samples, 2)
    if rows:
        student_ND, teacher_ND = _one_row_each(student.detach(), layouts[0]), _one_row_each(teacher, layouts[1])
        statistics[f'collapse_{name}'] = collapse(student_ND)
        if len(student) >= 4:
            statistics[f'cka_{name}'] = linear_cka(student_ND, teacher_ND, debiased=True)
    return statistics


def _mean(value: Tensor | Sequence[Any]) -> Tensor:
    values = [value] if isinstance(value, Tensor) else value
    return torch.stack([item.detach().float().mean() for item in values]).sum()


def _one_row_each(x: Tensor, layout: MapLayout | None) -> Tensor:
    return pool_map(x, layout or MapLayout()) if x.ndim == 4 else x


# --------------------------------------------------------------------------------------------------
# The start-up report: what was connected to what.


def term_table(terms: Sequence[Term], shapes: Mapping[str, Sequence[tuple[torch.Size, torch.Size]]]) -> str:
    """Describe the terms.

    Args:
        terms: The terms.
        shapes: By term, for each of its pairs the shapes of the tapped tensors of student and teacher.

    Returns:
        A table with a header and one line per pair of taps.
    """
    rows = [
        (
            title,
            f'{student} {tuple(shape_S)}',
            f'{term.of}: {teacher} {tuple(shape_T)}',
            f'{type(term.loss).__name__}{term.rows}{_choice(term)}',
            f'{getattr(term.loss, "loss_weight", "-")}',
            str(term.schedule),
        )
        for term in terms
        for title, (student, teacher), (shape_S, shape_T) in zip(
            pair_names(f'loss_{term.name}', len(term.pairs)), term.pairs, shapes[term.name], strict=True
        )
    ]
    return table(('term', 'student', 'teacher', 'loss', 'weight', 'schedule'), rows)


def _choice(term: Term) -> str:
    return f', {term.choice} choice' if len(term.pairs) > 1 else ''
