"""Stateful machinery of distillation for any torch model; needs no OpenMMLab package."""

from mmkd_ext.distill.cache import CachedTeacher, FeatureStore, Layout, fingerprint, model_fingerprint
from mmkd_ext.distill.distillation import Distillation, Stopwatch, TeacherCost
from mmkd_ext.distill.features import FrozenTeacher, Recorder, Tap
from mmkd_ext.distill.inputs import InputAdapter, Normalization
from mmkd_ext.distill.rehearsal import rehearse, same_randomness
from mmkd_ext.distill.term import Rows, Term, WeightSchedule

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
