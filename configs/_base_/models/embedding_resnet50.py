# ResNet-50 with the ImageNet weights of torchvision and an embedding of 512 dimensions, trained by triplets.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3, ),
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmkd_ext.EmbeddingHead',
        in_channels=2048,
        embedding_dims=512,
        loss=dict(type='mmkd_ext.TripletLoss', margin=0.2, mining='distance')))
