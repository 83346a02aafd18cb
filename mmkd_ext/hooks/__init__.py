"""Hooks of mmengine's runner."""

from mmkd_ext.hooks.best_head_hook import BestHeadHook
from mmkd_ext.hooks.discovery_report_hook import DiscoveryReportHook
from mmkd_ext.hooks.distill_hook import DistillHook
from mmkd_ext.hooks.generation_hook import GenerationHook
from mmkd_ext.hooks.load_check_hook import LoadCheckHook

__all__ = ['BestHeadHook', 'DiscoveryReportHook', 'DistillHook', 'GenerationHook', 'LoadCheckHook']
