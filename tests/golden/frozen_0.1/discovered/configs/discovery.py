cpu_threads = 1
custom_hooks = [
    dict(new=[
        'novel_head',
    ], type='mmkd_ext.LoadCheckHook'),
    dict(type='SyncBuffersHook'),
    dict(type='mmkd_ext.BestHeadHook'),
    dict(
        teacher=dict(
            checkpoint='discovered/stage_one/epoch_1.pth',
            config='discovered/configs/stage_one.py'),
        terms=dict(
            crkd=dict(
                loss=dict(loss_weight=0.01, type='mmkd_ext.ClassRelationLoss'),
                tap='class_logits')),
        type='mmkd_ext.DistillHook'),
]
default_hooks = dict(
    checkpoint=dict(
        interval=1, max_keep_ckpts=1, type='mmkd_ext.AtomicCheckpointHook'),
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
image_crop = 8
image_side = 8
load_from = 'discovered/stage_one/epoch_1.pth'
log_level = 'INFO'
log_processor = dict(window_size=10)
model = dict(
    assign_to='all',
    backbone=dict(channels=[
        4,
        8,
    ], in_channels=3, type='mmkd_ext.ConvNet'),
    data_preprocessor=dict(
        mean=[
            72.3,
            72.3,
            72.3,
        ],
        std=[
            90.9,
            90.9,
            90.9,
        ],
        to_rgb=False,
        type='mmkd_ext.MultiViewDataPreprocessor'),
    known_head=dict(in_channels=8, num_classes=2, type='mmkd_ext.CosineHead'),
    neck=dict(type='GlobalAveragePooling'),
    novel_head=dict(
        embed_channels=8,
        hidden_channels=8,
        in_channels=8,
        num_classes=2,
        type='mmkd_ext.NovelHead'),
    sinkhorn=dict(num_iters=20),
    type='mmkd_ext.NCDClassifier')
optim_wrapper = dict(
    optimizer=dict(lr=0.1, momentum=0.9, type='SGD', weight_decay=0.00015))
param_scheduler = [
    dict(begin=0, end=1, start_factor=0.01, type='LinearLR'),
    dict(begin=1, end=2, eta_min=0.001, type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
sync_bn = 'torch'
test_pipeline = [
    dict(meta_keys=('sample_idx', ), type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=2)
train_dataloader = dict(
    batch_size=15,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        ann_file='discovered/images.json',
        in_memory=True,
        pipeline=[
            dict(
                num_views=[
                    2,
                ],
                transforms=[
                    [
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
                    ],
                ],
                type='MultiView'),
            dict(meta_keys=('sample_idx', ), type='PackInputs'),
        ],
        side=8,
        subset='all',
        type='mmkd_ext.ListedImages'),
    drop_last=True,
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
visualizer = dict(
    type='Visualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
work_dir = 'discovered/discovery'
