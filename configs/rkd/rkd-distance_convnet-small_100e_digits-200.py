"""RKD (CVPR 2019, https://arxiv.org/abs/1904.05068), distance alone: 200 labelled digits, a small network learns from a large one.

    mmkd train configs/rkd/rkd-distance_convnet-small_100e_digits-200.py --with-teacher

Cost: 4 s of training on one CPU core, after 4 s for the teacher.
Result: top-1 85.7 ± 0.8, five seeds; student alone 83.0 ± 0.6.
"""

_base_ = '../_base_/teachers/convnet_digits-200.py'

custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        rkd_distance=dict(tap='neck', loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0))))]
