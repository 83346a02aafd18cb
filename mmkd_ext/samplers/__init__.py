"""Samplers."""

from mmkd_ext.samplers.class_uniform import ClassUniformBatchSampler
from mmkd_ext.samplers.endless_batches import EndlessBatches
from mmkd_ext.samplers.episodes import EpisodeBatchSampler
from mmkd_ext.samplers.m_per_class import MPerClassBatchSampler
from mmkd_ext.samplers.planned import PlannedBatchSampler
from mmkd_ext.samplers.quota_batch_sampler import QuotaBatchSampler
from mmkd_ext.samplers.resumable import ResumableBatchSampler, SeededBatch
from mmkd_ext.samplers.superclass_uniform import SuperclassUniformBatchSampler

__all__ = [
    'ClassUniformBatchSampler',
    'EndlessBatches',
    'EpisodeBatchSampler',
    'MPerClassBatchSampler',
    'PlannedBatchSampler',
    'QuotaBatchSampler',
    'ResumableBatchSampler',
    'SeededBatch',
    'SuperclassUniformBatchSampler',
]
