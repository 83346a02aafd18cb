# A student for 8 x 8 digits: three convolutions of 6, 12 and 24 channels. Teachers are wider.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(6, 12, 24)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        in_channels=24,
        num_classes=10,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))

# These tensors are too small for a second thread, which would only wait for the first.
cpu_threads = 1
