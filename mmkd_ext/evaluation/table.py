"""Discovery metrics as a table that fits a console."""

from collections.abc import Mapping
from typing import Any

__all__ = ['metric_table']

_COLUMNS = ('all', 'known', 'novel', 'NMI', 'ARI')

_ROWS = {
    'task-aware': (None, None, 'novel_acc', 'novel_nmi', 'novel_ari'),
    'task-agnostic v1': ('v1_all', 'v1_known', 'v1_novel', None, None),
    'task-agnostic v2': ('v2_all', 'v2_known', 'v2_novel', 'all_nmi', 'all_ari'),
    'task-agnostic v3': ('v3_all', 'v3_known', 'v3_novel', None, None),
}
"""Name of a row -> metric key in each column."""


def _cells(metrics: Mapping[str, Any], split: str, keys: tuple[str | None, ...], suffix: str) -> str:
    values = [metrics.get(f'{split}/{key}{suffix}') for key in keys]
    return ''.join('       -' if value is None else f'{value:8.2f}' for value in values)


def metric_table(metrics: Mapping[str, Any], best: int) -> str:
    """Lay out the numbers of ``NovelClassMetric``: one row per split and protocol, mean over heads and best head.

    Args:
        metrics: Metric key -> percent.
        best: Index of the best head by training objective.

    Returns:
        str: Lines of at most 100 characters.
    """
    splits = list(dict.fromkeys(key.split('/')[0] for key in metrics))
    width = max(len('split'), *map(len, splits))
    header = ''.join(f'{name:>8}' for name in _COLUMNS)
    lines = [f'{"split":<{width}}  {"protocol":<16}{header}   |{header}']
    lines.insert(0, f'{"":<{width}}  {"":<16}{"mean over heads":>40}   |{f"best head ({best})":>40}')
    for split in splits:
        for name, keys in _ROWS.items():
            if any(f'{split}/{key}' in metrics for key in keys):
                mean, chosen = (_cells(metrics, split, keys, suffix) for suffix in ('', '_best'))
                lines.append(f'{split:<{width}}  {name:<16}{mean}   |{chosen}')
    return '\n'.join(lines)
