"""miniImageNet: 100 classes of ImageNet for few-shot learning, in the split of Ravi and Larochelle.

Source: Vinyals et al., Matching Networks for One Shot Learning, NeurIPS 2016, arXiv 1606.04080; split of Ravi and
Larochelle, Optimization as a Model for Few-Shot Learning, ICLR 2017.
"""

import csv
from pathlib import Path
from typing import Any

from mmkd_ext.datasets.array_dataset import LabelledDataset, names_in
from mmkd_ext.ops.arguments import check_choice
from mmkd_ext.registry import DATASETS

NUM_CLASSES = {'train': 64, 'val': 16, 'test': 20}


@DATASETS.register_module()
class MiniImageNet(LabelledDataset):
    """Images of 100 classes, 600 of each in the original; the classes of the three splits are different.

    A sample is ``dict(img_path=..., gt_label=int)``. Classes are WordNet ids, ``'n01855672'``, sorted.

    Args:
        data_root: Folder of ``train.csv``, ``val.csv`` and ``test.csv``, whose rows are ``filename,label``, and of the
            folder ``images`` with all files.
        split: ``'train'``, ``'val'`` or ``'test'``.
        **kwargs: ``pipeline``, ``metainfo``, ``indices``, ``test_mode``, ``lazy_init`` of
            :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the split's file or an image is missing.
        ValueError: For another split, or a file with other columns or another number of classes.
    """

    def __init__(self, data_root: str, split: str, **kwargs: Any) -> None:
        check_choice('MiniImageNet', tuple(NUM_CLASSES), split=split)
        self.split = split
        super().__init__(ann_file=f'{split}.csv', data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img_path, gt_label)`` per image, in the order of the file."""
        rows = self._read_rows(Path(self.ann_file).expanduser())
        folder = Path(self.data_root).expanduser() / 'images'
        missing = [name for name, _ in rows if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f'MiniImageNet: expected the images of {self.split}.csv in {folder.absolute()} but {len(missing)} of '
                f'{len(rows)} are missing, {missing[0]} for one; put all images into this one folder'
            )
        classes = sorted({name for _, name in rows})
        self._metainfo.setdefault('classes', tuple(classes))
        label_of = {name: label for label, name in enumerate(classes)}
        return [{'img_path': str(folder / file), 'gt_label': label_of[name]} for file, name in rows]

    def _read_rows(self, path: Path) -> list[tuple[str, str]]:
        if not path.is_file():
            raise FileNotFoundError(
                f'MiniImageNet: expected {path.name} in {path.parent.absolute()} but got {names_in(path.parent)}; '
                'put the split files of Ravi and Larochelle there, beside the folder images, or set data_root'
            )
        rows = _read_columns(path)
        num_classes = len({name for _, name in rows})
        if num_classes != NUM_CLASSES[self.split]:
            raise ValueError(
                f'MiniImageNet: expected {NUM_CLASSES[self.split]} classes in {path} but got {num_classes} classes; '
                'use the split files of Ravi and Larochelle'
            )
        return rows


def _read_columns(path: Path) -> list[tuple[str, str]]:
    """Read file name and class of each image."""
    # Spreadsheets write a byte order mark.
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.DictReader(file)
        if not {'filename', 'label'} <= set(reader.fieldnames or ()):
            raise ValueError(
                f'MiniImageNet: expected the columns filename and label in {path} but got {reader.fieldnames}; '
                'write filename,label in its first line'
            )
        rows = [(row['filename'], row['label']) for row in reader]
    incomplete = [number for number, row in enumerate(rows, start=1) if not all(row)]
    if incomplete:
        raise ValueError(
            f'MiniImageNet: expected a filename and a label in each row of {path} but got {len(incomplete)} rows '
            f'without, row {incomplete[0]} for one; complete or remove them'
        )
    return rows
