"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: 20 classes of CIFAR-100, a small network learns from a large one.

    mmkd train configs/rkd/rkd_convnet-small_10e_cifar100-20x100.py --with-teacher

Cost: 6 s of training on one CPU core, after 6 s for the teacher.
Result: top-1 34.2 ± 0.5, five seeds; student alone 30.9 ± 0.3.
"""

_base_ = '../_base_/teachers/convnet_cifar100-20x100.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0)),
        rkd_angle=dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0))))]
