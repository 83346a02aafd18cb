"""Stateful machinery of distillation for any torch model; needs no OpenMMLab package."""

from mmkd_ext.distill.cache import CachedTeacher
from mmkd_ext.distill.cost import TeacherCost
from mmkd_ext.distill.distillation import Distillation
from mmkd_ext.distill.feature_store import FeatureStore, Layout
from mmkd_ext.distill.fingerprint import fingerprint, model_fingerprint
from mmkd_ext.distill.inputs import InputAdapter, Normalization
from mmkd_ext.distill.recorder import Recorder
from mmkd_ext.distill.rehearsal import rehearse, same_randomness
from mmkd_ext.distill.rows import Rows
from mmkd_ext.distill.schedule import WeightSchedule
from mmkd_ext.distill.stopwatch import Stopwatch
from mmkd_ext.distill.tap import Tap
from mmkd_ext.distill.teacher import FrozenTeacher
from mmkd_ext.distill.term import Term

__all__ = [
    'CachedTeacher',
    'Distillation',
    'FeatureStore',
    'FrozenTeacher',
    'InputAdapter',
    'Layout',
    'Normalization',
    'Recorder',
    'Rows',
    'Stopwatch',
    'Tap',
    'TeacherCost',
    'Term',
    'WeightSchedule',
    'fingerprint',
    'model_fingerprint',
    'rehearse',
    'same_randomness',
]
