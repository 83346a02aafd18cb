"""Samplers."""

from mmkd_ext.deprecation import moved
from mmkd_ext.samplers.cur import ClassUniformBatchSampler, SuperclassUniformBatchSampler
from mmkd_ext.samplers.per_class import EpisodeBatchSampler, MPerClassBatchSampler, QuotaBatchSampler
from mmkd_ext.samplers.planned import PlannedBatchSampler

__all__ = [
    'ClassUniformBatchSampler',
    'EpisodeBatchSampler',
    'MPerClassBatchSampler',
    'PlannedBatchSampler',
    'QuotaBatchSampler',
    'SuperclassUniformBatchSampler',
]

__getattr__ = moved(__name__, {'mmkd_ext.engine': 'EndlessBatches ResumableBatchSampler SeededBatch'})
