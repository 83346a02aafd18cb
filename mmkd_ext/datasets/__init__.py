"""Data sets of novel class discovery."""

from mmkd_ext.datasets.array_dataset import ArrayDataset
from mmkd_ext.datasets.cifar import CIFAR10, CIFAR100
from mmkd_ext.datasets.digits import Digits
from mmkd_ext.datasets.novel_class_split import NovelClassSplit

__all__ = ['CIFAR10', 'CIFAR100', 'ArrayDataset', 'Digits', 'NovelClassSplit']
