"""Models: novel class discovery, and what it needs around a backbone."""

from mmkd_ext.models.cifar_resnet import CIFARResNet
from mmkd_ext.models.conv_net import ConvNet
from mmkd_ext.models.convert import convert_dino_vit, convert_official_crkd
from mmkd_ext.models.data_preprocessor import MultiViewDataPreprocessor
from mmkd_ext.models.ncd_classifier import NCDClassifier
from mmkd_ext.models.sync_batch_norm import SyncBatchNorm, convert_sync_batch_norm
from mmkd_ext.models.wide_resnet import WideResNet

__all__ = [
    'CIFARResNet',
    'ConvNet',
    'MultiViewDataPreprocessor',
    'NCDClassifier',
    'SyncBatchNorm',
    'WideResNet',
    'convert_dino_vit',
    'convert_official_crkd',
    'convert_sync_batch_norm',
]
