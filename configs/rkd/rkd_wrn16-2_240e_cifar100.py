"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: CIFAR-100, WRN-16-2 learns from WRN-40-2.

    mmkd train configs/rkd/rkd_wrn16-2_240e_cifar100.py --with-teacher

Cost: one GPU; not measured.
Result: not run here; RepDistiller reports top-1 73.35 for this pair.
"""

_base_ = '../_base_/teachers/wrn40-2-wrn16-2_cifar100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0)),
        rkd_angle=dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0))))]
