"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: CIFAR-100, ResNet-20 learns from ResNet-56.

    mmkd train configs/rkd/rkd_resnet20_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 69.61 for this pair.
"""

_base_ = '../_base_/teachers/resnet56-resnet20_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0)),
        rkd_angle=dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0))))]
