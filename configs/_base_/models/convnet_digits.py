# A student for 8 x 8 digits: three convolutions of 4, 8 and 16 channels. Teachers are wider.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(4, 8, 16)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        in_channels=16,
        num_classes=10,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))

# These tensors are too small for a second thread, which would only wait for the first.
cpu_threads = 1
