# A student for 28 x 28 images of Omniglot: four convolutions and an embedding of 64 dimensions. Teachers are wider.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmkd_ext.ConvNet', in_channels=1, channels=(8, 16, 32, 64)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmkd_ext.EmbeddingHead',
        in_channels=64,
        embedding_dims=64,
        loss=dict(type='mmkd_ext.TripletLoss', margin=0.2, mining='distance')))

# These tensors are too small for a second thread, which would only wait for the first.
cpu_threads = 1
