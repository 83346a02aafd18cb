"""Data sets: novel class discovery, metric learning, few-shot learning."""

from mmkd_ext.datasets.array_dataset import ArrayDataset, Digits
from mmkd_ext.datasets.cifar import CIFAR10, CIFAR100
from mmkd_ext.datasets.folder_images import ListedImages
from mmkd_ext.datasets.image_classes import CUB200, Cars196, StanfordOnlineProducts
from mmkd_ext.datasets.in_memory_dataset import InMemoryDataset, collate_batch
from mmkd_ext.datasets.mini_imagenet import MiniImageNet
from mmkd_ext.datasets.novel_class_split import NovelClassSplit
from mmkd_ext.datasets.omniglot import Omniglot

__all__ = [
    'CIFAR10',
    'CIFAR100',
    'CUB200',
    'ArrayDataset',
    'Cars196',
    'Digits',
    'InMemoryDataset',
    'ListedImages',
    'MiniImageNet',
    'NovelClassSplit',
    'Omniglot',
    'StanfordOnlineProducts',
    'collate_batch',
]
