"""Hooks of mmengine's runner."""

from mmkd_ext.deprecation import moved
from mmkd_ext.hooks.cluster_hooks import ClusterHook, SuperclassHook
from mmkd_ext.hooks.distill_hook import DistillHook
from mmkd_ext.hooks.generation_hook import GenerationHook
from mmkd_ext.hooks.model_hooks import BestHeadHook, LoadCheckHook, SyncBatchNormHook, TeacherTemperatureHook
from mmkd_ext.hooks.rate_check_hook import RateCheckHook
from mmkd_ext.hooks.report_hooks import DiscoveryReportHook, NeighbourReportHook
from mmkd_ext.hooks.resume_hook import AtomicCheckpointHook, ExactResumeHook, PreemptionHook

__all__ = [
    'AtomicCheckpointHook',
    'BestHeadHook',
    'ClusterHook',
    'DiscoveryReportHook',
    'DistillHook',
    'ExactResumeHook',
    'GenerationHook',
    'LoadCheckHook',
    'NeighbourReportHook',
    'PreemptionHook',
    'RateCheckHook',
    'SuperclassHook',
    'SyncBatchNormHook',
    'TeacherTemperatureHook',
]

__getattr__ = moved(__name__, {'mmkd_ext.engine': 'BFloat16OptimWrapper'})
