# What every config shares: hooks, logging, visualisation, seed.
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmkd_ext.AtomicCheckpointHook', interval=10, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    exact_resume=dict(type='mmkd_ext.ExactResumeHook'),
    preemption=dict(type='mmkd_ext.PreemptionHook'),
    rate_check=dict(type='mmkd_ext.RateCheckHook'))

# Several processes validate, and save, the mean of their batch statistics.
custom_hooks = [dict(type='mmkd_ext.LoadCheckHook'), dict(type='SyncBuffersHook')]

env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(window_size=10)
log_level = 'INFO'
randomness = dict(seed=0)

load_from = None
resume = False
