# Discovery: the best head is chosen by its training objective, and the run ends with a report.
_base_ = './default_runtime.py'

custom_hooks = [dict(type='mmkd_ext.BestHeadHook'), dict(type='mmkd_ext.DiscoveryReportHook')]
