"""Augmentation of whole batches of images on the device that trains."""

from mmkd_ext.transforms.batch import BatchCompose, BatchMultiView, BatchRandomChoice, BatchTransform
from mmkd_ext.transforms.colour import BatchColorJitter, BatchEqualize, BatchSolarize
from mmkd_ext.transforms.crop import BatchRandomCrop, BatchRandomFlip, BatchRandomResizedCrop
from mmkd_ext.transforms.draws import BatchDraws

__all__ = [
    'BatchColorJitter',
    'BatchCompose',
    'BatchDraws',
    'BatchEqualize',
    'BatchMultiView',
    'BatchRandomChoice',
    'BatchRandomCrop',
    'BatchRandomFlip',
    'BatchRandomResizedCrop',
    'BatchSolarize',
    'BatchTransform',
]
