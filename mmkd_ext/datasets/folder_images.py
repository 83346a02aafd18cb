"""Images in folders or in a CSV of paths: which of them can be read, and a data set of them."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmkd_ext.datasets.array_dataset import LabelledDataset
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.pictures import read_square
from mmkd_ext.registry import DATASETS

__all__ = ['FolderImages', 'ListedImages', 'find_images', 'scan']

_SUFFIXES = ('.bmp', '.gif', '.jp2', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
_MAX_COLOUR = 8
"""Difference of the channels, of 255, up to which a pixel counts as grey: what JPEG leaves of it."""


@dataclass(frozen=True)
class FolderImages:
    """The images of a discovery, labelled ones first, each group in the order of its names.

    Attributes:
        paths: Path of each image as the user would write it; names that are no Unicode as ``os.fsdecode`` gives them.
        labels: Class of each image, -1 without label.
        classes: Names of the known classes, sorted.
        short_sides: Shorter side of each image in pixels.
        are_grey: Whether no image has colour.
        broken: (path, reason) of the files that cannot be read.
    """

    paths: list[str]
    labels: list[int]
    classes: list[str]
    short_sides: list[int]
    are_grey: bool
    broken: list[tuple[str, str]] = field(default_factory=list)


def scan(labelled: str, unlabelled: str) -> FolderImages:
    """Read every image once, and note those that cannot be read.

    Args:
        labelled: Folder with one folder for each known class, or a CSV with columns ``path`` and ``label``.
        unlabelled: Folder, looked through with all folders in it, or a CSV with a column ``path``. Files that are
            also labelled are left out here. Paths in a CSV begin at its folder.

    Raises:
        FileNotFoundError: There is no such folder or CSV.
        ValueError: A CSV lacks a column, or there are fewer than two known classes or no unlabelled image that can be
            read.
    """
    known = list(_labelled_files(labelled))
    taken = {os.path.realpath(path) for path, _ in known}
    files: list[tuple[str, str | None]] = [*known]
    files += [(path, None) for path in _unlabelled_files(unlabelled) if os.path.realpath(path) not in taken]
    seen = _look_at_all([path for path, _ in files])
    good = [(path, name, look) for (path, name), look in zip(files, seen, strict=True) if not isinstance(look, str)]
    broken = [(path, look) for (path, _), look in zip(files, seen, strict=True) if isinstance(look, str)]
    classes = _sorted({name for _, name, _ in good if name is not None})
    if len(classes) < 2:
        raise ValueError(
            f'scan: expected at least two known classes with images in {labelled} but got {classes}; make a folder '
            'for each'
        )
    if all(name is not None for _, name, _ in good):
        raise ValueError(f'scan: expected unlabelled images in {unlabelled} but got none that can be read')
    label_of = {name: label for label, name in enumerate(classes)} | {None: -1}
    return FolderImages(
        paths=[path for path, _, _ in good],
        labels=[label_of[name] for _, name, _ in good],
        classes=classes,
        short_sides=[side for _, _, (side, _) in good],
        are_grey=all(is_grey for _, _, (_, is_grey) in good),
        broken=broken,
    )


def find_images(places: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Find the images in files and folders.

    Args:
        places: Files, folders, and CSV files with a column ``path``.

    Returns:
        Paths of the images that can be read, and (path, reason) of the others.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: A CSV lacks the column.
    """
    paths: list[str] = []
    for place in places:
        is_image = os.path.isfile(place) and place.lower().endswith(_SUFFIXES)
        paths += [place] if is_image else _unlabelled_files(place)
    seen = _look_at_all(paths)
    good = [path for path, look in zip(paths, seen, strict=True) if not isinstance(look, str)]
    return good, [(path, look) for path, look in zip(paths, seen, strict=True) if isinstance(look, str)]


def _labelled_files(labelled: str) -> Iterator[tuple[str, str]]:
    """Path and class name of each file."""
    if os.path.isfile(labelled):
        yield from ((path, label) for path, label in _read_csv(labelled, ('path', 'label')))
        return
    if not os.path.isdir(labelled):
        raise FileNotFoundError(f'scan: expected a folder or CSV of labelled images but found none at {labelled}')
    for name in _sorted(os.listdir(labelled)):
        folder = os.path.join(labelled, name)
        if os.path.isdir(folder) and not name.startswith('.'):
            yield from ((path, name) for path in _walk(folder))


def _unlabelled_files(unlabelled: str) -> Iterator[str]:
    if os.path.isfile(unlabelled):
        yield from (path for (path,) in _read_csv(unlabelled, ('path',)))
        return
    if not os.path.isdir(unlabelled):
        raise FileNotFoundError(f'scan: expected a folder or CSV of unlabelled images but found none at {unlabelled}')
    yield from _walk(unlabelled)


def _read_csv(file_name: str, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The columns of each row, the first, a path, as seen from here."""
    with Path(file_name).open(newline='', encoding='utf-8-sig', errors='surrogateescape') as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f'scan: expected columns {list(columns)} in {file_name} but got {reader.fieldnames}; write them in '
                'the first line'
            )
        for row in reader:
            path, *others = (row[name] or '' for name in columns)
            yield os.path.join(os.path.dirname(file_name), path), *others


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in _sorted(folders) if not name.startswith('.')]
        for name in _sorted(names):
            if name.lower().endswith(_SUFFIXES) and not name.startswith('.'):
                yield os.path.join(parent, name)


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=os.fsencode)


def _look_at_all(paths: Sequence[str]) -> list[tuple[int, bool] | str]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_look_at, paths))


def _look_at(path: str) -> tuple[int, bool] | str:
    """Shorter side and greyness of an image, or why it cannot be read."""
    try:
        with Image.open(path) as image:
            short_side = min(image.size)
            image.draft('RGB', (64, 64))
            pixels = read_square(image, 16)
    except Exception as error:  # what Pillow raises for a damaged file depends on where it is damaged
        # Pillow repeats the path, or an address in memory.
        return f'{type(error).__name__}: {error}'.split(" '")[0].split(' <')[0]
    return short_side, bool(np.ptp(pixels.astype(np.int64), axis=2).max() <= _MAX_COLOUR)


# --------------------------------------------------------------------------------------------------
# The data set of what was found.


@DATASETS.register_module()
class ListedImages(LabelledDataset):
    """Squares cut from the images of a list; ``gt_label`` is -1 for those without label.

    The file is ``{"folder": ..., "classes": [...], "paths": [...], "labels": [...]}``, as ``mmkd discover`` writes
    it; paths begin at ``folder``. A sample is ``dict(img=(side, side, 3) RGB uint8, gt_label=int, sample_idx=int)``.

    Args:
        ann_file: The file.
        side: Pixels; see :func:`mmkd_ext.pictures.read_square`.
        subset: ``'all'`` or ``'labelled'``.
        in_memory: Whether all images are read once, at the start.
        **kwargs: ``pipeline``, ``indices``, ``lazy_init`` of :class:`mmengine.dataset.BaseDataset`.

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
        self._listed = json.loads(Path(ann_file).read_text(encoding='utf-8'))
        classes = tuple(self._listed['classes'])
        metainfo = {'classes': classes, 'num_known': len(classes)}
        super().__init__(ann_file=ann_file, metainfo=metainfo, serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img_path, gt_label)`` per image, with ``img`` if they are held in memory."""
        infos = [
            {'img_path': os.path.join(self._listed['folder'], path), 'gt_label': label}
            for path, label in zip(self._listed['paths'], self._listed['labels'], strict=True)
            if self.subset == 'all' or label >= 0
        ]
        if self.in_memory:
            for info in infos:
                info['img'] = read_square(info['img_path'], self.side)
        return infos

    def get_data_info(self, idx: int) -> dict:
        """Return what the pipeline of a sample starts from; the path stays here, its folder may be the class."""
        info = dict(super().get_data_info(idx))
        path = info.pop('img_path')
        if 'img' not in info:
            info['img'] = read_square(path, self.side)
        return info
