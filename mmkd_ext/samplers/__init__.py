"""Samplers."""

from mmkd_ext.deprecation import moved
from mmkd_ext.samplers.cur import ClassUniformBatchSampler, SuperclassUniformBatchSampler
from mmkd_ext.samplers.episodes import EpisodeBatchSampler
from mmkd_ext.samplers.m_per_class import MPerClassBatchSampler
from mmkd_ext.samplers.planned import PlannedBatchSampler
from mmkd_ext.samplers.quota import QuotaBatchSampler

__all__ = [
    'ClassUniformBatchSampler',
    'EpisodeBatchSampler',
    'MPerClassBatchSampler',
    'PlannedBatchSampler',
    'QuotaBatchSampler',
    'SuperclassUniformBatchSampler',
]

__getattr__ = moved(
    __name__,
    {
        'mmkd_ext.engine': ('EndlessBatches', 'ResumableBatchSampler', 'SeededBatch'),
    },
)
