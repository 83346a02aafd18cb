"""The table of a discovery: one line per image without label. The page in the browser writes the same bytes."""

import csv
from pathlib import Path

import numpy as np

from mmkd_ext.visualization.discovery_result import DiscoveryResult

__all__ = ['number_texts', 'write_assignments_csv']

_FORMULA_STARTS = ('=', '+', '-', '@', '\t', '\r')
"""A cell that begins so is computed by spreadsheets (OWASP, CSV injection), quoted or not."""


def number_texts(result: DiscoveryResult) -> tuple[list[str], list[str]]:
    """Format the numbers of all images.

    Args:
        result: What was discovered.

    Returns:
        tuple: Confidence with 4 decimals, and distance with 6 digits.
    """
    confidence, distance = np.asarray(result.confidence).tolist(), np.asarray(result.distance).tolist()
    return [f'{value:.4f}' for value in confidence], [f'{value:.6g}' for value in distance]


def write_assignments_csv(result: DiscoveryResult, path: Path) -> None:
    """Write the table as RFC 4180 wants it: every field quoted, lines end with CR LF, UTF-8.

    Names keep every character, line breaks and quotes included; a file name that is no Unicode keeps its bytes. A
    relative path that a spreadsheet would take for a formula gets './' in front: the same file, and no formula.

    Args:
        result: What was discovered.
        path: CSV file to write.
    """
    names, labels = result.class_names, np.asarray(result.labels).tolist()
    confidence, distance = number_texts(result)
    with path.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator='\r\n')
        writer.writerow(('path', 'cluster', 'confidence', 'distance'))
        for image in np.flatnonzero(~np.asarray(result.is_labelled, dtype=bool)).tolist():
            name = result.paths[image]
            name = f'./{name}' if name.startswith(_FORMULA_STARTS) else name
            writer.writerow((name, names[labels[image]], confidence[image], distance[image]))
