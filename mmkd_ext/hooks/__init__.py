"""Hooks of mmengine's runner."""

from mmkd_ext.deprecation import moved
from mmkd_ext.hooks.best_head_hook import BestHeadHook
from mmkd_ext.hooks.checkpoint_hook import AtomicCheckpointHook
from mmkd_ext.hooks.cluster_hook import ClusterHook
from mmkd_ext.hooks.discovery_report_hook import DiscoveryReportHook
from mmkd_ext.hooks.distill_hook import DistillHook
from mmkd_ext.hooks.generation_hook import GenerationHook
from mmkd_ext.hooks.load_check_hook import LoadCheckHook
from mmkd_ext.hooks.neighbour_report_hook import NeighbourReportHook
from mmkd_ext.hooks.preemption_hook import PreemptionHook
from mmkd_ext.hooks.resume_hook import ExactResumeHook
from mmkd_ext.hooks.superclass_hook import SuperclassHook
from mmkd_ext.hooks.sync_batch_norm_hook import SyncBatchNormHook
from mmkd_ext.hooks.teacher_temperature_hook import TeacherTemperatureHook

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
    'SuperclassHook',
    'SyncBatchNormHook',
    'TeacherTemperatureHook',
]

__getattr__ = moved(
    __name__,
    {
        'mmkd_ext.engine': ('BFloat16OptimWrapper',),
    },
)
