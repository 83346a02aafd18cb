"""Images of a list in a JSON file, some of them with a label."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mmkd_ext.functional.pictures import read_square
from mmkd_ext.registry import DATASETS

__all__ = ['ListedImages']


@DATASETS.register_module()
class ListedImages(BaseDataset):
    """Squares cut from the images of a list; ``gt_label`` is -1 for those without label.

    The file is ``{"folder": ..., "classes": [...], "paths": [...], "labels": [...]}``, as ``tools/discover.py`` writes
    it; paths begin at ``folder``. A sample is ``dict(img=(side, side, 3) RGB uint8, gt_label=int, sample_idx=int)``.

    Args:
        ann_file: The file.
        side: Pixels; see :func:`mmkd_ext.functional.pictures.read_square`.
        subset: ``'all'`` or ``'labelled'``.
        in_memory: Whether all images are read once, at the start.
        **kwargs: ``pipeline``, ``indices``, ``lazy_init`` of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: For another subset.
    """

    def __init__(self, ann_file: str, side: int, subset: str = 'all', in_memory: bool = False, **kwargs: Any) -> None:
        if subset not in ('all', 'labelled'):
            raise ValueError(f"ListedImages: expected subset 'all' or 'labelled' but got {subset!r}; choose one")
        if not Path(ann_file).is_file():
            raise FileNotFoundError(f'ListedImages: expected a list of images at {ann_file} but found none')
        self.side = side
        self.subset = subset
        self.in_memory = in_memory
        listed = json.loads(Path(ann_file).read_text(encoding='utf-8'))
        metainfo = {'classes': tuple(listed['classes']), 'num_known': len(listed['classes'])}
        super().__init__(ann_file=ann_file, metainfo=metainfo, serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img_path, gt_label)`` per image, with ``img`` if they are held in memory."""
        listed = json.loads(Path(self.ann_file).read_text(encoding='utf-8'))
        infos = [
            {'img_path': os.path.join(listed['folder'], path), 'gt_label': label}
            for path, label in zip(listed['paths'], listed['labels'], strict=True)
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

    def get_gt_labels(self) -> np.ndarray:
        """Return the labels of all samples, (N,) int64, -1 without label."""
        self.full_init()
        return np.array([info['gt_label'] for info in self.data_list], dtype=np.int64)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of one sample in a list, as mmengine's class-balanced wrappers expect it."""
        return [self.data_list[idx]['gt_label']]
