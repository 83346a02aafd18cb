"""Known and novel classes over any data set with labels; hidden labels do not exist downstream."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from mmkd_ext.ops.arguments import check_choice, near_misses
from mmkd_ext.registry import DATASETS

# Order in which the official code of Cr-KD strings the novel classes of an SSB split together.
_SSB_DIFFICULTIES = ('Hard', 'Medium', 'Easy')

Classes = int | str | Sequence[int | str]


def _class_index(item: int | str, classes: Sequence[str], caller: str) -> int:
    if isinstance(item, str):
        if item not in classes:
            hint = near_misses(item, classes) or f'the first are {list(classes[:3])}'
            raise KeyError(f'{caller}: expected a class name but got {item!r}; {hint}')
        return list(classes).index(item)
    if isinstance(item, bool) or not isinstance(item, int):
        raise TypeError(f'{caller}: expected class names or indices but got {item!r}; write a list of str or int')
    if not 0 <= item < len(classes):
        raise ValueError(f'{caller}: expected class indices 0..{len(classes) - 1} but got {item}; indices start at 0')
    return item


def _class_indices(items: Sequence[int | str], classes: Sequence[str], caller: str) -> list[int]:
    indices = [_class_index(item, classes, caller) for item in items]
    repeated = sorted({classes[index] for index in indices if indices.count(index) > 1})
    if repeated:
        raise ValueError(f'{caller}: expected each class once but got {repeated} more often; remove the repetition')
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


# --------------------------------------------------------------------------------------------------
# The data set.

UNLABELLED = -1

# All that an unlabelled sample takes into the pipeline from the data set: the image, or the way to it.
_ANONYMOUS_KEYS = ('img', 'img_path')
# All metainfo that an unlabelled sample brings out of it: a path would tell the class by its folder.
_ANONYMOUS_METAINFO = {
    'sample_idx',
    'split_name',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
}


@DATASETS.register_module()
class NovelClassSplit(Dataset):
    """The labelled and unlabelled samples of novel class discovery (NCD) or generalized category discovery (GCD).

    Labels are re-indexed known-first: 0..K-1 the known classes in the given order, K.. the novel ones. Samples of
    other classes are dropped. Labelled are images of known classes, all of them (NCD) or ``labelled_fraction`` of
    each class (GCD); all other images are unlabelled. With ``hide_labels`` an unlabelled sample has ``gt_label=-1``,
    and whatever could tell its class is removed before the pipeline (every key but the image and its path) and after
    it (every metainfo that is not in a short list, so the path too). What remains is the order of the samples, which
    is that of the wrapped data set, in ``sample_idx``: it must name the image.

    A training set is ``subset='all'``; the supervised stage ``subset='labelled'``; transductive evaluation
    ``subset='unlabelled', hide_labels=False, name='unlabelled_train'`` and inductive evaluation ``hide_labels=False,
    name='test'``, both with a test pipeline and joined by mmengine's ``ConcatDataset``.

    Source: GCD's labelled fraction from Vaze et al., Generalized Category Discovery, CVPR 2022,
    https://arxiv.org/abs/2201.02609.

    Args:
        dataset: Any mmengine or mmpretrain data set with ``gt_label`` (an int per sample), or its config. Its own
            pipeline is used, without retries.
        known: Number of leading classes, list of class indices or names, or path of an SSB split file.
        novel: List of class indices or names; None for all that are not known.
        subset: ``'all'``, ``'labelled'`` or ``'unlabelled'``.
        labelled_fraction: Share of the images of each known class that is labelled, in (0, 1], at least one image.
        seed: Seed of the choice of labelled images.
        hide_labels: Whether unlabelled samples lose their label. False only for evaluation.
        name: Name of the split, in every sample as ``split_name``.

    Attributes:
        metainfo: ``classes`` (names, known first) and ``num_known``.
        labelled: (N,) bool, which samples are labelled; it does not depend on ``hide_labels``.

    Raises:
        FileNotFoundError, KeyError, TypeError, ValueError: If known and novel classes do not make sense
            (:func:`~mmkd_ext.datasets.novel_class_split.partition_classes`), the data set lacks labels, or there is no
            labelled or unlabelled image where one is needed.
    """

    def __init__(
        self,
        dataset: dict | BaseDataset,
        known: Classes,
        novel: list[int | str] | None = None,
        subset: str = 'all',
        labelled_fraction: float = 1.0,
        seed: int = 0,
        hide_labels: bool = True,
        name: str = 'train',
    ) -> None:
        check_choice('NovelClassSplit', ('all', 'labelled', 'unlabelled'), subset=subset)
        if not 0 < labelled_fraction <= 1:
            raise ValueError(
                f'NovelClassSplit: expected labelled_fraction in (0, 1] but got {labelled_fraction}; 1 labels all '
                'images of known classes'
            )
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if not hasattr(self.dataset, 'pipeline'):
            raise TypeError(
                f'NovelClassSplit: expected a data set with a `pipeline` but got {type(self.dataset).__name__}; '
                'wrap each data set by itself and join the splits'
            )
        self.dataset.full_init()
        self.hide_labels = hide_labels
        self.name = name
        source_labels = _source_labels(self.dataset)
        classes = _class_names(self.dataset, source_labels)
        known_ids, novel_ids = partition_classes(known, novel, classes)
        self._metainfo: dict[str, Any] = {
            'classes': tuple(classes[index] for index in known_ids + novel_ids),
            'num_known': len(known_ids),
        }
        new_index = np.full(len(classes), UNLABELLED)
        new_index[known_ids + novel_ids] = np.arange(len(known_ids) + len(novel_ids))
        labels = new_index[source_labels]
        labelled = _choose_labelled(labels, len(known_ids), labelled_fraction, seed)
        wanted = {'all': labels >= 0, 'labelled': labelled, 'unlabelled': (labels >= 0) & ~labelled}[subset]
        self._indices = np.flatnonzero(wanted)
        self._labels = labels[wanted]
        self.labelled = labelled[wanted]
        self._check_not_empty(subset)

    def _check_not_empty(self, subset: str) -> None:
        caller = f'NovelClassSplit {self.name!r} over {type(self.dataset).__name__}'
        for_training = subset == 'all' and self.hide_labels
        if (subset == 'labelled' or for_training) and not self.labelled.any():
            raise ValueError(
                f'{caller}: expected labelled images but got none among {len(self)}; name known classes that '
                'have images'
            )
        if not len(self) or ((subset == 'unlabelled' or for_training) and self.labelled.all()):
            raise ValueError(
                f'{caller}: expected unlabelled images but got none among {len(self)}; name fewer known classes, lower '
                "labelled_fraction, or train without novel classes by subset='labelled'"
            )

    @property
    def metainfo(self) -> dict:
        """``classes`` (tuple of names, known first) and ``num_known``."""
        return dict(self._metainfo)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, known first."""
        return self._metainfo['classes']

    def full_init(self) -> None:
        """Do nothing: the split is complete when built. mmengine's wrappers and Runner call it."""

    def __len__(self) -> int:
        return len(self._indices)

    def _is_hidden(self, idx: int) -> bool:
        return self.hide_labels and not self.labelled[idx]

    def get_data_info(self, idx: int) -> dict:
        """Return what the pipeline of a sample starts from.

        Args:
            idx: Index in this split, negative counts from the end.

        Returns:
            The info of the wrapped data set with the new ``gt_label`` (-1 when hidden), ``sample_idx`` (index in this
            split) and ``split_name``; of a hidden sample nothing else but the image or its path.
        """
        idx = range(len(self))[idx]
        info = self.dataset.get_data_info(int(self._indices[idx]))
        if self._is_hidden(idx):
            info = {key: info[key] for key in _ANONYMOUS_KEYS if key in info}
            info['gt_label'] = UNLABELLED
        else:
            info['gt_label'] = int(self._labels[idx])
        info['sample_idx'] = idx
        info['split_name'] = self.name
        return info

    def __getitem__(self, idx: int) -> Any:
        """Return one sample as the pipeline of the wrapped data set makes it.

        Raises:
            RuntimeError: If the pipeline fails, as it does for an image that cannot be read. No other sample takes its
                place, since which images a result rests on must not depend on the state of a disk.
        """
        info = self.get_data_info(idx)
        path = info.get('img_path', 'in memory')
        try:
            sample = self.dataset.pipeline(info)
        except Exception as error:
            raise RuntimeError(self._unreadable(idx, path, f'{type(error).__name__}: {error}')) from error
        if sample is None:
            raise RuntimeError(self._unreadable(idx, path, 'nothing'))
        if self._is_hidden(range(len(self))[idx]):
            _forget_origin(sample)
        return sample

    def _unreadable(self, idx: int, path: str, got: str) -> str:
        return (
            f'NovelClassSplit {self.name!r} over {type(self.dataset).__name__}: expected image {idx} ({path}) to pass '
            f'the pipeline but got {got}; repair or remove the image, or correct the pipeline'
        )

    def get_gt_labels(self) -> np.ndarray:
        """Return the labels that training sees, (N,) int64, -1 for hidden ones."""
        return np.where(self.labelled | (not self.hide_labels), self._labels, UNLABELLED)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of one sample, -1 if hidden, in a list as mmengine's wrappers expect it."""
        return [UNLABELLED if self._is_hidden(idx) else int(self._labels[idx])]


def _source_labels(dataset: BaseDataset) -> np.ndarray:
    """Return the labels of the wrapped data set, (N,) int64."""
    caller = f'NovelClassSplit over {type(dataset).__name__}'
    labels = None
    try:
        if hasattr(dataset, 'get_gt_labels'):
            with suppress(ValueError):  # lists of unequal length, of which numpy makes no array: looked at one by one
                labels = np.asarray(dataset.get_gt_labels())
        if labels is None:
            one_by_one = [dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))]
            _check_single(caller, one_by_one)
            labels = np.array(one_by_one)
    except KeyError as error:
        raise ValueError(
            f'{caller}: expected `gt_label` in each sample but got none; use a labelled data set'
        ) from error
    if labels.dtype == object:
        _check_single(caller, labels.tolist())
    if labels.shape != (len(dataset),):
        raise ValueError(
            f'{caller}: expected {len(dataset)} labels, one per image, but got shape {labels.shape}; '
            'check the annotation file'
        )
    if labels.dtype.kind not in 'iu' or labels.min(initial=0) < 0:
        raise ValueError(
            f'{caller}: expected class indices >= 0 as labels but got {labels[:8]}...; check the annotations'
        )
    return labels.astype(np.int64)


def _check_single(caller: str, labels: Sequence[Any]) -> None:
    """Refuse a data set with several labels an image."""
    for index, label in enumerate(labels):
        if np.ndim(label):
            raise ValueError(
                f'{caller}: expected one label for each image but image {index} has {list(label)}; images of several '
                'classes cannot be split into known and novel ones: choose one label for each'
            )


def _class_names(dataset: BaseDataset, labels: np.ndarray) -> list[str]:
    """Return the names of all classes; their indices where the data set has no names."""
    num_classes = int(labels.max(initial=-1)) + 1
    names = list(dataset.metainfo.get('classes') or map(str, range(num_classes)))
    if num_classes > len(names):
        raise ValueError(
            f'NovelClassSplit over {type(dataset).__name__}: expected labels below {len(names)}, the number of class '
            f'names, but got label {num_classes - 1}; check the annotations or `metainfo`'
        )
    return names


def _choose_labelled(labels: np.ndarray, num_known: int, fraction: float, seed: int) -> np.ndarray:
    """Return (N,) bool: ``fraction`` of the images of each known class, rounded, at least one."""
    generator = np.random.default_rng(seed)
    labelled = np.zeros(len(labels), dtype=bool)
    for known in range(num_known):
        members = generator.permutation(np.flatnonzero(labels == known))
        labelled[members[: max(1, round(fraction * len(members)))]] = True
    return labelled


def _forget_origin(sample: dict) -> None:
    """Remove from a packed, unlabelled sample whatever could tell where the image lay."""
    sample.pop('img_path', None)
    data_sample = sample.get('data_samples')
    if isinstance(data_sample, BaseDataElement):
        for key in set(data_sample.metainfo_keys()) - _ANONYMOUS_METAINFO:
            data_sample.pop(key)
