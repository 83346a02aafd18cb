"""Images in folders or in lists: which of them can be read, what else lies there, and a data set of them.

Whatever lies in a folder is used, or listed as broken, or listed as ignored, with a reason. What had to be decided is
told in words (``notes``).
"""

import hashlib
import json
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from mmkd_ext.datasets.array_dataset import LabelledDataset
from mmkd_ext.datasets.image_lists import is_list, read_list
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.pictures import common_range, image_suffixes, open_image, other_kind, read_square, value_span
from mmkd_ext.registry import DATASETS

__all__ = ['FolderImages', 'ListedImages', 'find_images', 'look_through', 'scan', 'tally']

_MAX_COLOUR = 8
"""Difference of the channels, of 255, up to which a pixel counts as grey: what JPEG leaves of it."""
_SPLITS = {'train', 'training', 'val', 'valid', 'validation', 'test', 'testing'}
"""Names of folders between the root and the classes in which these are not, unless images lie in them."""


@dataclass(frozen=True)
class FolderImages:
    """The images of a discovery, labelled ones first, each group in the order of its names.

    Attributes:
        paths: Path of each image as the user would write it; names that are no Unicode as ``os.fsdecode`` gives them.
        labels: Class of each image, -1 without label.
        classes: Names of the known classes, sorted.
        short_sides: Shorter side of each image in pixels.
        are_grey: Whether no image has colour.
        broken: (path, reason) of the images that cannot be read.
        ignored: (path, reason) of whatever else lies there: other files, hidden and empty folders.
        notes: What was decided about odd folders and lists, one sentence each.
        value_range: What is black and white in images of more than 8 bits (:data:`mmkd_ext.pictures.ValueRange`).
    """

    paths: list[str]
    labels: list[int]
    classes: list[str]
    short_sides: list[int]
    are_grey: bool
    broken: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    value_range: dict[str, list[float]] = field(default_factory=dict)


def scan(labelled: str, unlabelled: str) -> FolderImages:
    """Read every image once, and note those that cannot be read and all else that lies there.

    Args:
        labelled: Folder with one folder for each known class, or a CSV with columns ``path`` and ``label``. A folder
            without images of its own is no class where the folders in it are: ``birds/robin`` is the class ``robin``.
            Rows without label are unlabelled images.
        unlabelled: Folder, looked through with all folders in it, or a CSV with a column ``path``. Files that are
            also labelled are left out here. Paths in a CSV begin at its folder.

    Raises:
        FileNotFoundError: There is no such folder or CSV.
        ValueError: A CSV lacks a column, an image has two labels, or there are fewer than two known classes or no
            unlabelled image that can be read.
    """
    found = _Found()
    known = _labelled_files(labelled, found)
    files = _once(known, found)
    taken = {os.path.realpath(path) for path, _ in files}
    others = [(path, None) for path, name in known if name is None]
    others += [(path, None) for path in _unlabelled_files(unlabelled, found)]
    new = {os.path.realpath(path): (path, name) for path, name in reversed(others)}
    if num_taken := len(taken & new.keys()):
        found.notes.append(f'{num_taken} labelled images lie among the unlabelled ones, too: they count once')
    files += [file for file in reversed(new.values()) if os.path.realpath(file[0]) not in taken]
    looks = found.look_at_all([path for path, _ in files])
    good = [(path, name, looks[path]) for path, name in files if path in looks]
    classes = _sorted({name for _, name, _ in good if name is not None})
    for name, number in Counter(name for _, name in files if name is not None).items():
        if name not in classes:
            found.notes.append(f'none of the {number} images of class {name!r} can be read: there is no such class')
    if len(classes) < 2:
        raise ValueError(
            f'scan: expected at least two known classes with images in {labelled} but got {classes}; make a folder '
            f'for each{found.reasons()}'
        )
    if all(name is not None for _, name, _ in good):
        raise ValueError(
            f'scan: expected unlabelled images in {unlabelled} but got none that can be read{found.reasons()}'
        )
    found.notes += _copies([(path, name) for path, name, _ in good])
    label_of = {name: label for label, name in enumerate(classes)} | {None: -1}
    return FolderImages(
        paths=[path for path, _, _ in good],
        labels=[label_of[name] for _, name, _ in good],
        classes=classes,
        short_sides=[look.short_side for _, _, look in good],
        are_grey=all(look.is_grey for _, _, look in good),
        broken=found.broken,
        ignored=found.ignored,
        notes=found.notes,
        value_range=common_range(look.span for _, _, look in good),
    )


def find_images(places: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Find the images in files and folders.

    Args:
        places: Images, folders, and lists: CSV files with a column ``path``, of suffix ``.csv``, ``.tsv`` or ``.txt``.

    Returns:
        Paths of the images that can be read, and (path, reason) of the others and of all else in the folders.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A CSV lacks the column.
    """
    paths, broken, ignored, _ = look_through(places)
    return paths, broken + ignored


def look_through(
    places: Iterable[str],
) -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """Find the images in files and folders, as :func:`find_images`.

    Returns:
        Paths of the images that can be read, (path, reason) of broken ones, the same of all else, and notes.
    """
    found = _Found()
    paths: list[str] = []
    for place in places:
        is_image = os.path.isfile(place) and not is_list(place)
        paths += [place] if is_image else _unlabelled_files(place, found)
    looks = found.look_at_all(paths)
    return [path for path in paths if path in looks], found.broken, found.ignored, found.notes


def tally(entries: Iterable[tuple[str, str]], most: int = 4) -> str:
    """Count reasons in words, the most frequent ones first.

    Args:
        entries: (path, reason).
        most: Reasons that are named.

    Returns:
        Such as ``'12 a video; export frames of it (a/x.mp4, ...)'``; empty without entries.
    """
    paths = defaultdict(list)
    for path, reason in entries:
        paths[reason].append(path)
    ranked = sorted(paths.items(), key=lambda item: -len(item[1]))
    parts = [
        f'{len(of_reason)} x {reason} ({of_reason[0]!r}{", ..." if len(of_reason) > 1 else ""})'
        for reason, of_reason in ranked[:most]
    ]
    left = sum(len(of_reason) for _, of_reason in ranked[most:])
    return '; '.join(parts + ([f'{left} for other reasons'] if left else []))


# --------------------------------------------------------------------------------------------------
# Looking through folders.


class _Found:
    """What is not used, and why."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, str]] = []
        self.ignored: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def walk(self, folder: str) -> Iterator[str]:
        """Yield the files below a folder that may be images, those of a folder before those of its folders."""
        yield from self._walk(folder, os.path.realpath(folder), set())

    def _walk(self, folder: str, root: str, visited: set[str]) -> Iterator[str]:
        visited.add(os.path.realpath(folder))
        try:
            names = _sorted(os.listdir(folder))
        except OSError as error:
            self.ignored.append((folder, f'a folder that cannot be read: {error.strerror}'))
            return
        if not names:
            self.ignored.append((folder, 'an empty folder'))
        below = []
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith('.'):
                self.ignored.append((path, 'hidden'))
            elif os.path.isdir(path):
                below.append(path)
            elif reason := _no_image(path):
                self.ignored.append((path, reason))
            else:
                yield path
        for path in below:
            target = os.path.realpath(path)
            if os.path.islink(path) and (_is_within(target, root) or _is_within(root, target) or target in visited):
                self.ignored.append((path, 'a link to a folder that is looked through anyway, or around this one'))
            else:
                yield from self._walk(path, root, visited)

    def look_at_all(self, paths: Sequence[str]) -> dict[str, '_Look']:
        """Read all images; note those that cannot be read, and files of unknown kind that are none."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            looks = dict(zip(paths, pool.map(_look_at, paths), strict=True))
        for path, look in looks.items():
            if isinstance(look, _NoImage):
                is_image = look.is_damaged or os.path.splitext(path)[1].lower() in image_suffixes()
                (self.broken if is_image else self.ignored).append((path, look.reason))
        return {path: look for path, look in looks.items() if isinstance(look, _Look)}

    def reasons(self) -> str:
        """What may be behind an error, to be put after it."""
        left_out = tally(self.broken + self.ignored)
        return ''.join(f'. {text}' for text in [*self.notes, *([f'Left out: {left_out}'] if left_out else [])])


def _no_image(path: str) -> str | None:
    """Why a file is not even opened."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None  # a link to nowhere: it is named as what cannot be read
    if not stat.S_ISREG(mode):
        return 'no regular file'  # to open a pipe would wait for ever
    return other_kind(path)


def _is_within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _labelled_files(labelled: str, found: _Found) -> list[tuple[str, str | None]]:
    """Path and class of each file; no class for the rows of a list that have none."""
    if os.path.isfile(labelled):
        listed = read_list(labelled, ('path', 'label'))
        found.notes += listed.notes
        return [(file.path, file.label) for file in listed.files]
    if not os.path.isdir(labelled):
        raise FileNotFoundError(f'scan: expected a folder or CSV of labelled images but found none at {labelled}')
    tops: dict[str, list[str]] = {}
    for name in _sorted(os.listdir(labelled)):
        path = os.path.join(labelled, name)
        if name.startswith('.'):
            found.ignored.append((path, 'hidden'))
        elif os.path.isdir(path):
            tops[path] = list(found.walk(path))
            if not tops[path] and os.listdir(path):
                found.ignored.append((path, 'a folder without an image'))
        else:
            reason = 'it lies beside the folders of the classes; move it into one' if not other_kind(path) else None
            found.ignored.append((path, reason or str(other_kind(path))))
    return [(path, name) for name, files in _classes_of(tops, found.notes) for path in files]


def _unlabelled_files(unlabelled: str, found: _Found) -> list[str]:
    if os.path.isfile(unlabelled):
        listed = read_list(unlabelled, ('path',))
        found.notes += listed.notes
        return [file.path for file in listed.files]
    if not os.path.isdir(unlabelled):
        raise FileNotFoundError(f'scan: expected a folder or CSV of unlabelled images but found none at {unlabelled}')
    return list(found.walk(unlabelled))


def _classes_of(tops: Mapping[str, Sequence[str]], notes: list[str]) -> list[tuple[str, Sequence[str]]]:
    """Name the class of each folder: its own name if images lie in it, else those of the folders in it.

    The latter only where they tell classes apart: not if another folder has such a one too (``cat/2023``,
    ``dog/2023``), or they are numbers. Folders called ``train`` or ``test`` are looked through.
    """
    tops, splits = _without_splits(tops)
    if splits:
        notes.append(f'{", ".join(splits)}: the folders in them are the classes')
    below = {top: _leaves(top, files) for top, files in tops.items() if files}
    owners = Counter(name for leaves in below.values() for name in leaves)
    owners.update({os.path.basename(top) for top, leaves in below.items() if os.path.basename(top) not in leaves})
    found: list[tuple[str, Sequence[str]]] = []
    for top, leaves in below.items():
        name = os.path.basename(top)
        if list(leaves) == [name]:
            found.append((name, tops[top]))
        elif any(owners[leaf] > 1 for leaf in leaves) or not any(re.search(r'[^\W\d]', leaf) for leaf in leaves):
            notes.append(f'{top}: the folders in it, such as {next(iter(leaves))!r}, are taken as parts of {name!r}')
            found.append((name, tops[top]))
        else:
            shown = ', '.join(map(repr, [*leaves][:3])) + (', ...' if len(leaves) > 3 else '')
            notes.append(f'{top}: no image lies in it, so the folders in it are the classes: {shown}')
            found += leaves.items()
    return found


def _without_splits(tops: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Put the folders of ``train``, ``val`` and the like in their place, joined by name, and tell which these were."""
    joined: dict[str, list[str]] = {}
    splits = []
    for top, files in tops.items():
        if os.path.basename(top).lower() in _SPLITS and not _has_own(top, files) and files:
            splits.append(top)
            for file in files:
                name = os.path.relpath(file, top).split(os.sep)[0]
                place = next((known for known in joined if os.path.basename(known) == name), os.path.join(top, name))
                joined.setdefault(place, []).append(file)
        else:
            joined[top] = list(files)
    return joined, splits


def _leaves(folder: str, files: Sequence[str]) -> dict[str, list[str]]:
    """Files by the name of the first folder on the way to them that has images of its own."""
    if _has_own(folder, files):
        return {os.path.basename(folder): list(files)}
    below: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        below[os.path.relpath(file, folder).split(os.sep)[0]].append(file)
    leaves: defaultdict[str, list[str]] = defaultdict(list)
    for name, of_name in below.items():
        for leaf, of_leaf in _leaves(os.path.join(folder, name), of_name).items():
            leaves[leaf] += of_leaf
    return dict(leaves)


def _has_own(folder: str, files: Sequence[str]) -> bool:
    return any(os.path.dirname(file) == folder for file in files)


def _once(known: Sequence[tuple[str, str | None]], found: _Found) -> list[tuple[str, str | None]]:
    """Labelled files without those that are there twice, by links or in a list."""
    first: dict[str, tuple[str, str | None]] = {}
    for path, name in known:
        if name is None:
            continue
        earlier = first.setdefault(os.path.realpath(path), (path, name))
        if earlier[1] != name:
            raise ValueError(
                f'scan: expected one label for each image but {earlier[0]} of {earlier[1]!r} and {path} of {name!r} '
                'are one file; remove one of them'
            )
    if num_twice := sum(name is not None for _, name in known) - len(first):
        found.notes.append(f'{num_twice} labelled files are links to others: they count once')
    return list(first.values())


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=os.fsencode)


# --------------------------------------------------------------------------------------------------
# Looking at images.


@dataclass(frozen=True)
class _Look:
    short_side: int
    is_grey: bool
    span: tuple[str, float, float] | None


@dataclass(frozen=True)
class _NoImage:
    reason: str
    is_damaged: bool


def _look_at(path: str) -> _Look | _NoImage:
    """Shorter side, greyness and span of an image, or why it cannot be read."""
    try:
        with open_image(path) as image:
            short_side = min(image.size)
            image.draft('RGB', (64, 64))
            span = value_span(image)
            pixels = read_square(image, 16)
    except UnidentifiedImageError as error:
        return _NoImage(str(error), is_damaged=False)
    except Exception as error:  # what Pillow raises for a damaged file depends on where it is damaged
        # Pillow repeats the path, or an address in memory.
        return _NoImage(f'{type(error).__name__}: {error}'.split(" '")[0].split(' <')[0], is_damaged=True)
    return _Look(short_side, bool(np.ptp(pixels.astype(np.int64), axis=2).max() <= _MAX_COLOUR), span)


def _copies(files: Sequence[tuple[str, str | None]]) -> list[str]:
    """Count byte copies, and those with another label than their original."""
    by_size = defaultdict(list)
    for path, name in files:
        by_size[os.path.getsize(path)].append((path, name))
    originals: dict[bytes, tuple[str, str | None]] = {}
    copies = []
    for same in by_size.values():
        for path, name in same if len(same) > 1 else []:
            original = originals.setdefault(hashlib.sha256(Path(path).read_bytes()).digest(), (path, name))
            if original[0] != path:
                copies.append((original, (path, name)))
    if not copies:
        return []
    (first, _), (second, _) = copies[0]
    notes = [f'{len(copies)} files are copies of others, byte for byte, such as {second} of {first}: each is used']
    torn = [(one, two) for one, two in copies if None not in (one[1], two[1]) and one[1] != two[1]]
    if torn:
        (first, label), (second, other) = torn[0]
        notes.append(
            f'{len(torn)} of these copies have two labels, such as {first} ({label!r}) and {second} ({other!r}): '
            'remove the wrong ones'
        )
    return notes


# --------------------------------------------------------------------------------------------------
# The data set of what was found.


@DATASETS.register_module()
class ListedImages(LabelledDataset):
    """Squares cut from the images of a list; ``gt_label`` is -1 for those without label.

    The file is ``{"folder": ..., "classes": [...], "paths": [...], "labels": [...]}``, as ``mmkd discover`` writes
    it, with ``"value_range"`` (:data:`mmkd_ext.pictures.ValueRange`) if need be; paths begin at ``folder``. A sample is
    ``dict(img=(side, side, 3) RGB uint8, gt_label=int, sample_idx=int)``.

    Args:
        ann_file: The file.
        side: Pixels; see :func:`mmkd_ext.pictures.read_square`.
        subset: ``'all'`` or ``'labelled'``.
        in_memory: Whether all images are read once, at the start.
        **kwargs: ``pipeline``, ``indices``, ``lazy_init`` of :class:`mmengine.dataset.BaseDataset`.

    Attributes:
        labelled: (N,) bool, which images have a label, for :class:`mmkd_ext.samplers.QuotaBatchSampler`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: For another subset.
    """

    def __init__(self, ann_file: str, side: int, subset: str = 'all', in_memory: bool = False, **kwargs: Any) -> None:
        check_choice('ListedImages', ('all', 'labelled'), subset=subset)
        if not Path(ann_file).is_file():
            raise FileNotFoundError(f'ListedImages: expected a list of images at {ann_file} but found none')
        self.side = side
        self.subset = subset
        self.in_memory = in_memory
        self._listed: dict[str, Any] = json.loads(Path(ann_file).read_text(encoding='utf-8'))
        classes = tuple(self._listed['classes'])
        metainfo = {'classes': classes, 'num_known': len(classes)}
        super().__init__(ann_file=ann_file, metainfo=metainfo, serialize_data=False, **kwargs)

    @property
    def labelled(self) -> np.ndarray:
        """Which images have a label, (N,) bool."""
        return self.get_gt_labels() >= 0

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img_path, gt_label)`` per image, with ``img`` if they are held in memory."""
        infos = [
            {'img_path': os.path.join(self._listed['folder'], path), 'gt_label': label}
            for path, label in zip(self._listed['paths'], self._listed['labels'], strict=True)
            if self.subset == 'all' or label >= 0
        ]
        if self.in_memory:
            for info in infos:
                info['img'] = self._read(info['img_path'])
        return infos

    def get_data_info(self, idx: int) -> dict:
        """Return what the pipeline of a sample starts from; the path stays here, its folder may be the class."""
        info = dict(super().get_data_info(idx))
        path = info.pop('img_path')
        if 'img' not in info:
            info['img'] = self._read(path)
        return info

    def _read(self, path: str) -> np.ndarray:
        return read_square(path, self.side, self._listed.get('value_range'))
