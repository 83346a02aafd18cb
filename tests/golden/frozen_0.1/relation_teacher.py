cpu_threads = 1
custom_hooks = [
    dict(type='mmkd_ext.LoadCheckHook'),
    dict(type='SyncBuffersHook'),
]
data_preprocessor = dict(
    mean=[
        77.7,
    ], num_classes=10, std=[
        95.8,
    ])
default_hooks = dict(
    checkpoint=dict(
        interval=1, max_keep_ckpts=2, type='mmkd_ext.AtomicCheckpointHook'),
    exact_resume=dict(type='mmkd_ext.ExactResumeHook'),
    logger=dict(interval=100, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    preemption=dict(type='mmkd_ext.PreemptionHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'))
default_scope = 'mmpretrain'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
load_from = None
log_level = 'INFO'
log_processor = dict(window_size=10)
model = dict(
    backbone=dict(channels=(
        4,
        6,
    ), in_channels=1, type='mmkd_ext.ConvNet'),
    head=dict(
        in_channels=6,
        loss=dict(loss_weight=1.0, type='CrossEntropyLoss'),
        num_classes=10,
        type='LinearClsHead'),
    neck=dict(type='GlobalAveragePooling'),
    type='ImageClassifier')
optim_wrapper = dict(optimizer=dict(lr=0.01, type='AdamW', weight_decay=0.01))
param_scheduler = [
    dict(begin=0, end=100, eta_min=0, type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
resume = False
test_cfg = dict()
test_dataloader = dict(
    batch_size=596,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='test',
        type='mmkd_ext.Digits'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(type='Accuracy')
test_pipeline = [
    dict(type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
train_dataloader = dict(
    batch_size=50,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        indices=200,
        pipeline=[
            dict(type='NumpyToPIL'),
            dict(
                degrees=15,
                interpolation='bilinear',
                scale=(
                    0.9,
                    1.1,
                ),
                translate=(
                    0.125,
                    0.125,
                ),
                type='torchvision/RandomAffine'),
            dict(type='PackInputs'),
        ],
        split='train',
        type='mmkd_ext.Digits'),
    drop_last=True,
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
train_pipeline = [
    dict(type='NumpyToPIL'),
    dict(
        degrees=15,
        interpolation='bilinear',
        scale=(
            0.9,
            1.1,
        ),
        translate=(
            0.125,
            0.125,
        ),
        type='torchvision/RandomAffine'),
    dict(type='PackInputs'),
]
val_cfg = dict()
val_dataloader = dict(
    batch_size=596,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        pipeline=[
            dict(type='PackInputs'),
        ],
        split='test',
        type='mmkd_ext.Digits'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(type='Accuracy')
visualizer = dict(
    type='Visualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
work_dir = 'runs/relation_teacher'
