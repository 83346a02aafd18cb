"""Which classes of a data set are known and which are novel."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

# Order in which the official code of Cr-KD strings the novel classes of an SSB split together.
_SSB_DIFFICULTIES = ('Hard', 'Medium', 'Easy')

Classes = int | str | Sequence[int | str]


def _class_index(item: int | str, classes: Sequence[str], who: str) -> int:
    if isinstance(item, str):
        if item not in classes:
            near = get_close_matches(item, classes, n=3) or list(classes[:3])
            raise KeyError(f'{who}: expected a class name but got {item!r}; did you mean one of {near}?')
        return list(classes).index(item)
    if isinstance(item, bool) or not isinstance(item, int):
        raise TypeError(f'{who}: expected class names or indices but got {item!r}; write a list of str or int')
    if not 0 <= item < len(classes):
        raise ValueError(f'{who}: expected class indices 0..{len(classes) - 1} but got {item}; indices start at 0')
    return item


def _class_indices(items: Sequence[int | str], classes: Sequence[str], who: str) -> list[int]:
    indices = [_class_index(item, classes, who) for item in items]
    repeated = sorted({classes[index] for index in indices if indices.count(index) > 1})
    if repeated:
        raise ValueError(f'{who}: expected each class once but got {repeated} more often; remove the repetition')
    return indices


def _read_ssb_split(path: Path) -> tuple[list[int], list[int]]:
    if not path.is_file():
        raise FileNotFoundError(
            f'NovelClassSplit.known: expected an SSB split file but got {path.absolute()}, which does not exist; '
            'give the path of a json file, or a list of classes'
        )
    try:
        split = json.loads(path.read_text())
        unknown = split['unknown']
        return list(split['known']), [index for difficulty in _SSB_DIFFICULTIES for index in unknown[difficulty]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            'NovelClassSplit.known: expected {"known": [...], "unknown": {"Easy": [...], "Medium": [...], "Hard": '
            f'[...]}}}} in {path} but got {type(error).__name__}: {error}; repair the file'
        ) from error


def partition_classes(
    known: Classes, novel: Sequence[int | str] | None, classes: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Resolve the known and the novel classes of a data set to class indices.

    Args:
        known: Number of leading classes, list of indices or names, or path of an SSB split file
            (``{"known": [...], "unknown": {"Easy": [...], "Medium": [...], "Hard": [...]}}``), which also gives the
            novel classes, in the official order Hard, Medium, Easy.
        novel: List of indices or names; None for all other classes in the order of the data set.
        classes: Names of all classes.

    Returns:
        Indices of the known and of the novel classes; both lists keep the given order.

    Raises:
        FileNotFoundError: If the split file is missing.
        KeyError: For an unknown class name.
        TypeError: For an item that is neither index nor name.
        ValueError: For an index out of range, a repeated class, no known class, or a class that is known and novel.
    """
    if isinstance(known, str):
        if novel is not None:
            raise ValueError(
                f'NovelClassSplit: expected no `novel` beside the split file {known} but got {novel}; remove it'
            )
        known, novel = _read_ssb_split(Path(known))
    elif isinstance(known, int) and not isinstance(known, bool):
        if not 0 < known <= len(classes):
            raise ValueError(
                f'NovelClassSplit.known: expected 1..{len(classes)} classes but got {known}; '
                f'the data set has {len(classes)} classes'
            )
        known = range(known)
    elif not isinstance(known, Sequence):
        raise TypeError(
            f'NovelClassSplit.known: expected a number, a list of classes or a path but got {known!r}; change it'
        )
    known_ids = _class_indices(known, classes, 'NovelClassSplit.known')
    if not known_ids:
        raise ValueError('NovelClassSplit.known: expected at least one class but got none; name the known classes')
    if novel is None:
        return known_ids, [index for index in range(len(classes)) if index not in known_ids]
    if isinstance(novel, str) or not isinstance(novel, Sequence):
        raise TypeError(f'NovelClassSplit.novel: expected a list of classes or None but got {novel!r}; write a list')
    novel_ids = _class_indices(novel, classes, 'NovelClassSplit.novel')
    both = [classes[index] for index in novel_ids if index in known_ids]
    if both:
        raise ValueError(f'NovelClassSplit: expected disjoint classes but got {both} known and novel; keep one of each')
    return known_ids, novel_ids
