# GCD on 8 x 8 digits: the network of the other discovery methods, a projection of 64 dimensions.
model = dict(
    type='mmkd_ext.GCD',
    data_preprocessor=dict(type='mmkd_ext.MultiViewDataPreprocessor', mean=[77.7], std=[95.8]),
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(16, 32, 64)),
    neck=dict(type='GlobalAveragePooling'),
    num_known=5,
    contrastive_head=dict(
        type='mmkd_ext.ContrastiveHead',
        in_channels=64,
        hidden_channels=256,
        out_channels=64,
        temperature=0.3,
        supervised_temperature=0.3))

# These tensors are too small for a second thread, which would only wait for the first.
cpu_threads = 1
