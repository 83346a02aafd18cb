# WRN-16-2 of the CIFAR benchmarks: 0.70 M parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.WideResNet', depth=16, widen_factor=2),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        in_channels=128,
        num_classes=100,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
