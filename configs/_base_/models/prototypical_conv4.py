# The four-layer network of few-shot learning, 64 channels: an embedding of 64 numbers from 28 x 28 pixels.
model = dict(
    type='mmkd_ext.PrototypicalNetwork',
    data_preprocessor=dict(type='mmkd_ext.MultiViewDataPreprocessor', mean=[0.0], std=[255.0]),
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(64, 64, 64, 64)),
    neck=dict(type='mmkd_ext.MaxPooling', kernel_size=2),
    num_shots=1)
