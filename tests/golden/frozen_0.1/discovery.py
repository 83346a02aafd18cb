cpu_threads = 1
custom_hooks = [
    dict(
        new=[
            'novel_head',
            'overcluster_head',
        ],
        type='mmkd_ext.LoadCheckHook'),
    dict(type='mmkd_ext.BestHeadHook'),
    dict(type='mmkd_ext.DiscoveryReportHook'),
    dict(
        teacher=dict(checkpoint='stage_one.pth', config='stage_one.py'),
        terms=dict(
            crkd=dict(
                loss=dict(loss_weight=0.01, type='mmkd_ext.ClassRelationLoss'),
                tap='class_logits')),
        type='mmkd_ext.DistillHook'),
]
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
known = [
    5,
    6,
    7,
    8,
    9,
]
load_from = 'stage_one.pth'
log_level = 'INFO'
log_processor = dict(window_size=10)
model = dict(
    backbone=dict(channels=(
        4,
        8,
    ), in_channels=1, type='mmkd_ext.ConvNet'),
    data_preprocessor=dict(
        mean=[
            77.7,
        ], std=[
            95.8,
        ], type='mmkd_ext.MultiViewDataPreprocessor'),
    known_head=dict(in_channels=8, num_classes=5, type='mmkd_ext.CosineHead'),
    neck=dict(type='GlobalAveragePooling'),
    novel_head=dict(
        embed_channels=8,
        hidden_channels=8,
        in_channels=8,
        num_classes=5,
        num_heads=2,
        type='mmkd_ext.NovelHead'),
    type='mmkd_ext.NCDClassifier')
optim_wrapper = dict(
    optimizer=dict(lr=0.1, momentum=0.9, type='SGD', weight_decay=0.00015))
pack = dict(
    meta_keys=(
        'sample_idx',
        'split_name',
    ), type='PackInputs')
param_scheduler = [
    dict(begin=0, end=10, start_factor=0.01, type='LinearLR'),
    dict(begin=10, end=80, eta_min=0.001, type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
resume = False
stage_one = dict(checkpoint='stage_one.pth', config='stage_one.py')
sync_bn = 'torch'
test_cfg = dict()
test_dataloader = dict(
    batch_size=512,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        datasets=[
            dict(
                dataset=dict(
                    pipeline=[
                        dict(
                            meta_keys=(
                                'sample_idx',
                                'split_name',
                            ),
                            type='PackInputs'),
                    ],
                    split='train',
                    type='mmkd_ext.Digits'),
                hide_labels=False,
                known=[
                    5,
                    6,
                    7,
                    8,
                    9,
                ],
                name='unlabelled_train',
                subset='unlabelled',
                type='mmkd_ext.NovelClassSplit'),
            dict(
                dataset=dict(
                    pipeline=[
                        dict(
                            meta_keys=(
                                'sample_idx',
                                'split_name',
                            ),
                            type='PackInputs'),
                    ],
                    split='test',
                    type='mmkd_ext.Digits'),
                hide_labels=False,
                known=[
                    5,
                    6,
                    7,
                    8,
                    9,
                ],
                name='test',
                type='mmkd_ext.NovelClassSplit'),
        ],
        type='ConcatDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(num_known=5, type='mmkd_ext.NovelClassMetric')
test_pipeline = [
    dict(meta_keys=(
        'sample_idx',
        'split_name',
    ), type='PackInputs'),
]
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
train_dataloader = dict(
    batch_size=128,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        dataset=dict(
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
                dict(
                    meta_keys=(
                        'sample_idx',
                        'split_name',
                    ),
                    type='PackInputs'),
            ],
            split='train',
            type='mmkd_ext.Digits'),
        known=[
            5,
            6,
            7,
            8,
            9,
        ],
        type='mmkd_ext.NovelClassSplit'),
    drop_last=True,
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
train_pipeline = [
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
    dict(meta_keys=(
        'sample_idx',
        'split_name',
    ), type='PackInputs'),
]
val_cfg = dict()
val_dataloader = dict(
    batch_size=512,
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        datasets=[
            dict(
                dataset=dict(
                    pipeline=[
                        dict(
                            meta_keys=(
                                'sample_idx',
                                'split_name',
                            ),
                            type='PackInputs'),
                    ],
                    split='train',
                    type='mmkd_ext.Digits'),
                hide_labels=False,
                known=[
                    5,
                    6,
                    7,
                    8,
                    9,
                ],
                name='unlabelled_train',
                subset='unlabelled',
                type='mmkd_ext.NovelClassSplit'),
            dict(
                dataset=dict(
                    pipeline=[
                        dict(
                            meta_keys=(
                                'sample_idx',
                                'split_name',
                            ),
                            type='PackInputs'),
                    ],
                    split='test',
                    type='mmkd_ext.Digits'),
                hide_labels=False,
                known=[
                    5,
                    6,
                    7,
                    8,
                    9,
                ],
                name='test',
                type='mmkd_ext.NovelClassSplit'),
        ],
        type='ConcatDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(num_known=5, type='mmkd_ext.NovelClassMetric')
view = [
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
]
visualizer = dict(
    type='Visualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
work_dir = 'runs/discovery'
