"""Data sets: novel class discovery, metric learning, few-shot learning."""

from mmkd_ext.datasets.array_dataset import ArrayDataset
from mmkd_ext.datasets.cars import Cars196
from mmkd_ext.datasets.cifar import CIFAR10, CIFAR100
from mmkd_ext.datasets.cub import CUB200
from mmkd_ext.datasets.digits import Digits
from mmkd_ext.datasets.in_memory_dataset import InMemoryDataset, collate_batch
from mmkd_ext.datasets.listed_images import ListedImages
from mmkd_ext.datasets.mini_imagenet import MiniImageNet
from mmkd_ext.datasets.novel_class_split import NovelClassSplit
from mmkd_ext.datasets.omniglot import Omniglot
from mmkd_ext.datasets.stanford_online_products import StanfordOnlineProducts

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
