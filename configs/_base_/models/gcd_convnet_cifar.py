# GCD on 16 x 16 images of CIFAR: the network of the other discovery methods.
_base_ = './gcd_convnet.py'

model = dict(
    data_preprocessor=dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418], channels_last=True),
    backbone=dict(in_channels=3, channels=(32, 64, 128)),
    contrastive_head=dict(in_channels=128))
