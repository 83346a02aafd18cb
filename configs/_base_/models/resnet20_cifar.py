# ResNet-20 of the CIFAR benchmarks: 0.28 M parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.CIFARResNet', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        in_channels=64,
        num_classes=100,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
