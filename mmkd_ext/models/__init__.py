"""Models: novel class discovery, and what it needs around a backbone."""

from mmkd_ext.models.batch_colour import BatchColorJitter, BatchEqualize, BatchSolarize
from mmkd_ext.models.batch_crop import BatchRandomCrop, BatchRandomFlip, BatchRandomResizedCrop
from mmkd_ext.models.batch_pipeline import BatchMultiView, BatchRandomChoice
from mmkd_ext.models.cifar_resnet import CIFARResNet
from mmkd_ext.models.conv_net import ConvNet
from mmkd_ext.models.convert import convert_dino_vit, convert_official_crkd
from mmkd_ext.models.data_preprocessor import MultiViewDataPreprocessor
from mmkd_ext.models.gcd import GCD
from mmkd_ext.models.max_pooling import MaxPooling
from mmkd_ext.models.multi_view_model import MultiViewModel
from mmkd_ext.models.ncd_classifier import NCDClassifier
from mmkd_ext.models.prototypical_network import PrototypicalNetwork
from mmkd_ext.models.simgcd import SimGCD
from mmkd_ext.models.sync_batch_norm import SyncBatchNorm, convert_sync_batch_norm
from mmkd_ext.models.wide_resnet import WideResNet

__all__ = [
    'GCD',
    'BatchColorJitter',
    'BatchEqualize',
    'BatchMultiView',
    'BatchRandomChoice',
    'BatchRandomCrop',
    'BatchRandomFlip',
    'BatchRandomResizedCrop',
    'BatchSolarize',
    'CIFARResNet',
    'ConvNet',
    'MaxPooling',
    'MultiViewDataPreprocessor',
    'MultiViewModel',
    'NCDClassifier',
    'PrototypicalNetwork',
    'SimGCD',
    'SyncBatchNorm',
    'WideResNet',
    'convert_dino_vit',
    'convert_official_crkd',
    'convert_sync_batch_norm',
]
