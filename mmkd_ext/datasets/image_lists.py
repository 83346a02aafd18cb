"""Images listed in a CSV file, as spreadsheets and pandas write it, and what is odd about a list.

Any of comma, semicolon, tab and bar may be between the columns, UTF-8 with or without a mark and UTF-16 are read, and
names of columns may be written in any case. What a list leaves out or says twice is counted in words for the user.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ['ImageList', 'ListedFile', 'is_list', 'read_list']

_DELIMITERS = ',;\t|'
_MISSING = {'', '#N/A', '<NA>', 'N/A', 'NA', 'NULL', 'NaN', 'None', 'n/a', 'nan', 'null'}
"""Labels that pandas writes, or reads, for none; in this spelling only."""


@dataclass(frozen=True)
class ListedFile:
    """One image of a list.

    Attributes:
        path: As seen from here.
        label: Without spaces at its ends; ``None`` where there is none.
        line: Line of the file that names it.
        written: The path as the file has it.
    """

    path: str
    label: str | None
    line: int
    written: str


@dataclass(frozen=True)
class ImageList:
    """The images of a list, each once.

    Attributes:
        name: The CSV file.
        files: In its order; those that are not there too.
        notes: What is odd, in words, with counts.
    """

    name: str
    files: list[ListedFile]
    notes: list[str]


def is_list(path: str | os.PathLike) -> bool:
    """Tell by its suffix whether a file is a list."""
    return os.path.splitext(path)[1].lower() in ('.csv', '.tsv', '.txt')


def read_list(file_name: str, columns: Sequence[str]) -> ImageList:
    """Read a CSV file.

    Args:
        file_name: The file. Its paths begin at its folder.
        columns: ``('path', 'label')``, or ``('path',)`` for a list without labels.

    Raises:
        ValueError: The file is no text, lacks a column, or gives one image two labels.
    """
    rows = list(csv_rows(file_name, columns))
    first: dict[str, ListedFile] = {}
    num_missing = num_repeated = 0
    notes, unlabelled = [], Counter[str]()
    folder = os.path.dirname(file_name)
    for line, (written, *labels) in rows:
        if not written.strip():
            num_missing += 1
            continue
        label = labels[0].strip() if labels else ''
        if labels and label in _MISSING:
            unlabelled[label] += 1
        listed = ListedFile(_find(folder, written), None if label in _MISSING else label, line, written)
        earlier = first.setdefault(os.path.realpath(listed.path), listed)
        if earlier is not listed:
            num_repeated += 1
            if earlier.label != listed.label:
                raise ValueError(
                    f'{file_name}: expected one label for each image but {written!r} has {earlier.label!r} in line '
                    f'{earlier.line} and {listed.label!r} in line {line}; remove one of the lines'
                )
    if num_missing:
        notes.append(f'{num_missing} lines of {file_name} have no path: left out')
    if unlabelled:
        spelt = ', '.join(repr(label) for label in sorted(unlabelled))
        notes.append(f'{unlabelled.total()} lines of {file_name} have no label ({spelt}): unlabelled images')
    if num_repeated:
        notes.append(f'{num_repeated} lines of {file_name} repeat an image: it counts once')
    files = list(first.values())
    return ImageList(file_name, files, notes + _not_found(file_name, files))


def csv_rows(file_name: str, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Read some columns of a CSV file.

    Args:
        file_name: The file.
        columns: Names in the first line, lower case.

    Returns:
        (line, values of the columns) of each row; a value that a row lacks is ''.

    Raises:
        ValueError: The file is no text, or lacks a column.
    """
    lines = list(io.StringIO(_text(file_name), newline=''))  # str.splitlines() also cuts at characters of a name
    skipped = 1 if lines and re.fullmatch(r'sep=.\s*', lines[0]) else 0  # for spreadsheets
    lines = lines[skipped:]
    headers = {delimiter: _cells(lines, delimiter, file_name) for delimiter in _DELIMITERS}
    fitting = [delimiter for delimiter, names in headers.items() if set(columns) <= set(names)]
    if not fitting:
        found = max(headers.values(), key=len)
        raise ValueError(
            f'scan: expected columns {list(columns)} in {file_name} but got {found}; write them in the first line'
        )
    places = [headers[fitting[0]].index(name) for name in columns]
    reader = csv.reader(lines, delimiter=fitting[0], skipinitialspace=True)
    try:
        return [
            (reader.line_num + skipped, [row[place] if place < len(row) else '' for place in places])
            for number, row in enumerate(reader)
            if number and any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise ValueError(f'{file_name}: expected a CSV file but line {reader.line_num} is none: {error}') from error


def _text(file_name: str) -> str:
    content = Path(file_name).read_bytes()
    if content.startswith((b'\xff\xfe', b'\xfe\xff')):
        return content.decode('utf-16', errors='replace')
    if b'\0' in content[:4096]:
        raise ValueError(f'scan: expected a folder or a CSV file but {file_name} is no text; give one of them')
    return content.decode('utf-8-sig', errors='surrogateescape')


def _cells(lines: list[str], delimiter: str, file_name: str) -> list[str]:
    """Names in the first line, without spaces, in lower case."""
    try:
        cells = next(csv.reader(lines[:1], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(f'{file_name}: expected a CSV file but its first line is none: {error}') from error
    return [cell.strip().lower() for cell in cells]


def _find(folder: str, written: str) -> str:
    """The path as seen from here; spaces at its ends count only where such a file is."""
    path = os.path.join(folder, written)
    return path if os.path.lexists(path) else os.path.join(folder, written.strip())


def _not_found(file_name: str, files: Sequence[ListedFile]) -> list[str]:
    lost = [listed for listed in files if not os.path.exists(listed.path)]
    if not lost:
        return []
    folder = os.path.dirname(os.path.abspath(file_name))
    if any('\\' in listed.written for listed in lost):
        remedy = 'they have backslashes: write / in their place'
    elif any(os.path.exists(listed.written) for listed in lost):
        remedy = 'they are there as seen from the working directory: move the list there, or write absolute paths'
    else:
        remedy = 'they begin at the folder of the list; correct them, or move the list'
    return [
        (
            f'{len(lost)} of {len(files)} images of {file_name} were not found, the first {lost[0].written!r} of line '
            f'{lost[0].line} in {folder}; {remedy}'
        )
    ]
