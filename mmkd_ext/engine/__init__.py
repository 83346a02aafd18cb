"""What our hooks and tools stand on beside mmengine's Runner: resuming, files, features of data sets."""

from mmkd_ext.checkpoint import AtomicLocalBackend
from mmkd_ext.engine.cpu import BFloat16OptimWrapper, SyncBatchNorm, convert_sync_batch_norm
from mmkd_ext.engine.runner import EndlessBatches, ResumableBatchSampler, SeededBatch, student_of

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'EndlessBatches',
    'ResumableBatchSampler',
    'SeededBatch',
    'SyncBatchNorm',
    'convert_sync_batch_norm',
    'student_of',
]
