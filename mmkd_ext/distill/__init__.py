"""Stateful machinery of distillation for any torch model; needs no OpenMMLab package."""

from mmkd_ext.distill.distillation import Distillation
from mmkd_ext.distill.recorder import Recorder
from mmkd_ext.distill.tap import Tap
from mmkd_ext.distill.teacher import FrozenTeacher
from mmkd_ext.distill.term import Term

__all__ = ['Distillation', 'FrozenTeacher', 'Recorder', 'Tap', 'Term']
