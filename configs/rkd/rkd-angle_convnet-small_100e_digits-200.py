"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), angle alone: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/rkd/rkd-angle_convnet-small_100e_digits-200.py --with-teacher

Cost: 5 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 85.6 ± 0.9, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_angle=dict(tap='neck', loss=dict(type='mmkd_ext.RKDAngleLoss', loss_weight=50.0))))]
