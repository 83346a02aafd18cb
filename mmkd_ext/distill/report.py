"""The start-up report: what was connected to what."""

from collections.abc import Mapping, Sequence

import torch

from mmkd_ext.distill.diagnostics import pair_names
from mmkd_ext.distill.term import Term

__all__ = ['table', 'term_table']


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns.

    Args:
        header: Titles of the columns.
        rows: As many texts in each.

    Returns:
        One line per row, indented by two spaces.
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return '\n'.join(
        '  ' + '  '.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


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
