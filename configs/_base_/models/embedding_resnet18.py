# The student: ResNet-18, which starts from ImageNet weights too, and an embedding of 128 dimensions.
_base_ = './embedding_resnet50.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    head=dict(in_channels=512, embedding_dims=128))
