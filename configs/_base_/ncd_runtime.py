# Discovery: starts from stage one, chooses the best head by its training objective, ends with a report.
_base_ = './default_runtime.py'

custom_hooks = [
    dict(type='mmkd_ext.LoadCheckHook', new=['novel_head', 'overcluster_head']),
    dict(type='mmkd_ext.BestHeadHook'),
    dict(type='mmkd_ext.DiscoveryReportHook')]

# Several processes train as one with the same global batch; one process ignores this.
sync_bn = 'torch'
