# Three convolutions for 8 x 8 digits; the embedding has 64 dimensions.
model = dict(
    type='mmkd_ext.NCDClassifier',
    data_preprocessor=dict(type='mmkd_ext.MultiViewDataPreprocessor', mean=[77.7], std=[95.8]),
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(16, 32, 64)),
    neck=dict(type='GlobalAveragePooling'),
    known_head=dict(type='mmkd_ext.CosineHead', in_channels=64, num_classes=5))

# These tensors are too small for a second thread, which would only wait for the first.
cpu_threads = 1
