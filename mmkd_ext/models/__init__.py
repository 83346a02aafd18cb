"""Models: novel class discovery, and what it needs around a backbone."""

from mmkd_ext.deprecation import moved
from mmkd_ext.models.convert import convert_dino_vit, convert_official_crkd
from mmkd_ext.models.gcd import GCD
from mmkd_ext.models.images import CIFARResNet, ConvNet, MaxPooling, MultiViewDataPreprocessor, WideResNet
from mmkd_ext.models.multi_view import MultiViewModel
from mmkd_ext.models.prototypical import PrototypicalNetwork
from mmkd_ext.models.simgcd import SimGCD
from mmkd_ext.models.uno import NCDClassifier

__all__ = [
    'GCD',
    'CIFARResNet',
    'ConvNet',
    'MaxPooling',
    'MultiViewDataPreprocessor',
    'MultiViewModel',
    'NCDClassifier',
    'PrototypicalNetwork',
    'SimGCD',
    'WideResNet',
    'convert_dino_vit',
    'convert_official_crkd',
]

__getattr__ = moved(
    __name__,
    {
        'mmkd_ext.engine': 'SyncBatchNorm convert_sync_batch_norm',
        'mmkd_ext.transforms': 'BatchColorJitter BatchEqualize BatchMultiView BatchRandomChoice BatchRandomCrop '
        'BatchRandomFlip BatchRandomResizedCrop BatchSolarize',
    },
)
