"""Losses as registered modules: a function of :mod:`mmkd_ext.functional`, its settings, and a weight.

All stand on :mod:`mmkd_ext.losses.base`: ``loss_weight`` comes first and has a default, everything else comes by name,
``gather`` takes the samples of all processes where they are compared with each other, ``print`` shows every setting.
"""

from mmkd_ext.losses.attention import AttentionTransferLoss
from mmkd_ext.losses.base import LabelledRelationLoss, RelationLoss
from mmkd_ext.losses.cckd import CCKDLoss
from mmkd_ext.losses.crkd import ClassRelationLoss
from mmkd_ext.losses.cskd import CategoryCentreLoss, InterCategoryLoss, IntraCategoryLoss
from mmkd_ext.losses.darkrank import HardDarkRankLoss
from mmkd_ext.losses.dist import DISTLoss
from mmkd_ext.losses.kd import KDLoss, SoftTargetLoss
from mmkd_ext.losses.metric_learning import ContrastiveLoss, TripletLoss
from mmkd_ext.losses.mlkd import MLKDLoss
from mmkd_ext.losses.patches import PatchRelationLoss
from mmkd_ext.losses.pkt import PKTLoss
from mmkd_ext.losses.rkd import RKDAngleLoss, RKDDistanceLoss
from mmkd_ext.losses.skd import SKDLoss
from mmkd_ext.losses.sp import SPLoss
from mmkd_ext.losses.tuples import TupleRelationLoss
from mmkd_ext.losses.wkd import WKDLoss

__all__ = [
    'AttentionTransferLoss',
    'CCKDLoss',
    'CategoryCentreLoss',
    'ClassRelationLoss',
    'ContrastiveLoss',
    'DISTLoss',
    'HardDarkRankLoss',
    'InterCategoryLoss',
    'IntraCategoryLoss',
    'KDLoss',
    'LabelledRelationLoss',
    'MLKDLoss',
    'PKTLoss',
    'PatchRelationLoss',
    'RKDAngleLoss',
    'RKDDistanceLoss',
    'RelationLoss',
    'SKDLoss',
    'SPLoss',
    'SoftTargetLoss',
    'TripletLoss',
    'TupleRelationLoss',
    'WKDLoss',
]
