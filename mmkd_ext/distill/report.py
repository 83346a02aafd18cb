"""The start-up report: what was connected to what."""

from collections.abc import Mapping, Sequence

import torch

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


def term_table(terms: Sequence[Term], shapes: Mapping[str, tuple[torch.Size, torch.Size]]) -> str:
    """Describe the terms.

    Args:
        terms: The terms.
        shapes: By term, the shapes of the tapped tensors of student and teacher.

    Returns:
        A table with a header and one line per term.
    """
    rows = [
        (
            f'loss_{term.name}',
            f'{term.student} {tuple(shapes[term.name][0])}',
            f'{term.of}: {term.teacher} {tuple(shapes[term.name][1])}',
            type(term.loss).__name__ + _rows(term),
            f'{getattr(term.loss, "loss_weight", "-")}',
            str(term.schedule),
        )
        for term in terms
    ]
    return table(('term', 'student', 'teacher', 'loss', 'weight', 'schedule'), rows)


def _rows(term: Term) -> str:
    return f' of {term.tokens} tokens' if term.tokens else f' after {term.pooling}' if term.pooling else ''
