# ResNet-18 with a 3 x 3 stem and no max-pool, as UNO and Cr-KD use for CIFAR; mean and std of both official codes.
model = dict(
    type='mmkd_ext.NCDClassifier',
    data_preprocessor=dict(
        type='mmkd_ext.MultiViewDataPreprocessor',
        mean=[129.285, 124.185, 112.455],
        std=[68.085, 65.28, 70.38]),
    backbone=dict(type='ResNet_CIFAR', depth=18, num_stages=4, out_indices=(3, ), style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    known_head=dict(type='mmkd_ext.CosineHead', in_channels=512, num_classes=50))
