"""Images of a list in a JSON file, some of them with a label."""

import json
import os
from pathlib import Path
from typing import Any

from mmkd_ext.datasets.labelled_dataset import LabelledDataset
from mmkd_ext.functional.pictures import read_square
from mmkd_ext.registry import DATASETS

__all__ = ['ListedImages']


@DATASETS.register_module()
class ListedImages(LabelledDataset):
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
